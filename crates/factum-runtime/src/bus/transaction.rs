//! Transactions, as layers see them.

use std::{fmt, sync::Arc};

use factum_kernel::{
    Aggregate, Command, DecisionModel, Kernel, Repository, RetryPolicy, StreamVersion, Transaction,
};

use super::step::CommandStep;

/// A [`Transaction`] whose steps layers can see. Cheap to clone. A clone is the same transaction.
///
/// ```
/// # use factum_kernel::{CommandId, Kernel, Repository, RetryPolicy, TagKey};
/// # use factum_testing::bank::{Account, AccountCommand};
/// use factum_runtime::{CommandRequest, CommandTransaction};
///
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = Kernel::new(store.clone(), store).with_tag_key(TagKey::new([1; 32]));
/// # let accounts = Repository::<Account>::new(kernel.clone());
/// let transfer = CommandTransaction::new(kernel, RetryPolicy::new())
///     .command(&accounts, "ada", AccountCommand::Send { to: "bob".into(), cents: 200 })
///     .command(&accounts, "bob", AccountCommand::Receive { from: "ada".into(), cents: 200 });
/// let request = CommandRequest::transaction(CommandId::derived("order-17", "pay"), transfer);
/// let keys: Vec<_> = request.commands::<Account>().map(|(key, _)| key).collect();
/// assert_eq!(keys, ["ada", "bob"]);
/// ```
#[derive(Clone)]
#[must_use]
pub struct CommandTransaction {
    transaction: Transaction,
    steps: Vec<CommandStep>,
    /// The aggregates whose versions are expected.
    expected: Vec<CommandStep>,
}

impl CommandTransaction {
    /// Makes a transaction without steps.
    pub fn new(kernel: Kernel, retry: RetryPolicy) -> Self {
        let transaction = Transaction::new(kernel).with_retry(retry);
        Self { transaction, steps: Vec::new(), expected: Vec::new() }
    }

    /// Adds a command; see [`Transaction::execute`]. The command derives `Command`, because an id
    /// of the transaction names it.
    pub fn command<A: Aggregate<Command: Command>>(
        mut self,
        on: &Repository<A>,
        key: &str,
        command: A::Command,
    ) -> Self {
        let command = Arc::new(command);
        let mut step = CommandStep::of_aggregate::<A>(key, command.clone());
        step.name_for::<A>();
        self.steps.push(step);
        self.transaction = self.transaction.execute(on, key, command);
        self
    }

    /// Adds a decision over a query; see [`Transaction::decide`]. The command derives `Command`,
    /// because an id of the transaction names it.
    pub fn decide<M: DecisionModel<Command: Command>>(self, command: M::Command) -> Self {
        let mut transaction = self.decide_unnamed::<M>(command);
        transaction.steps.last_mut().into_iter().for_each(CommandStep::name_for_model::<M>);
        transaction
    }

    /// Adds a decision whose command may have no stored name.
    pub(super) fn decide_unnamed<M: DecisionModel>(mut self, command: M::Command) -> Self {
        let command = Arc::new(command);
        self.steps.push(CommandStep::of_model::<M>(command.clone()));
        self.transaction = self.transaction.decide::<M>(command);
        self
    }

    /// Lets a step lead to no event although others do; see [`Transaction::allowing_unchanged`].
    pub fn allowing_unchanged(mut self) -> Self {
        self.transaction = self.transaction.allowing_unchanged();
        self
    }

    /// Sets the version that an aggregate must have; see [`Transaction::expecting`].
    pub fn expecting<A: Aggregate>(
        mut self,
        on: &Repository<A>,
        key: &str,
        version: StreamVersion,
    ) -> Self {
        self.expected.push(CommandStep::expecting::<A>(key, version));
        self.transaction = self.transaction.expecting(on, key, version);
        self
    }

    /// The transaction and what layers see of it: the steps, and then the aggregates that it names
    /// only to expect a version of them.
    pub(super) fn into_parts(self) -> (Transaction, Vec<CommandStep>) {
        let Self { transaction, mut steps, expected } = self;
        for expected in expected {
            if !steps.iter().any(|step| step.is_for_same(&expected)) {
                steps.push(expected);
            }
        }
        (transaction, steps)
    }
}

impl fmt::Debug for CommandTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandTransaction").field("steps", &self.steps).finish_non_exhaustive()
    }
}
