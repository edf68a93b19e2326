//! Transactions, as layers see them.

use std::{fmt, sync::Arc};

use factum_kernel::{
    Aggregate, DecisionModel, Kernel, Repository, RetryPolicy, StreamVersion, Transaction,
};

use super::step::CommandStep;

/// A [`Transaction`] whose steps layers can see. Cheap to clone. A clone is the same transaction.
///
/// ```
/// # use factum_kernel::{Kernel, Repository, RetryPolicy, TagKey};
/// # use factum_testing::bank::{Account, AccountCommand};
/// use factum_runtime::{CommandId, CommandRequest, CommandTransaction};
///
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = Kernel::new(store.clone(), store).with_tag_key(TagKey::new([1; 32]));
/// # let accounts = Repository::<Account>::new(kernel.clone());
/// let transfer = CommandTransaction::new(kernel, RetryPolicy::new())
///     .command(&accounts, "ada", AccountCommand::Send { to: "bob".into(), cents: 200 })
///     .command(&accounts, "bob", AccountCommand::Receive { from: "ada".into(), cents: 200 });
/// let request = CommandRequest::transaction(CommandId::derived(b"17"), transfer);
/// let keys: Vec<_> = request.commands::<Account>().map(|(key, _)| key).collect();
/// assert_eq!(keys, ["ada", "bob"]);
/// ```
#[derive(Clone)]
#[must_use]
pub struct CommandTransaction {
    transaction: Transaction,
    steps: Vec<CommandStep>,
}

impl CommandTransaction {
    /// Makes a transaction without steps.
    pub fn new(kernel: Kernel, retry: RetryPolicy) -> Self {
        let transaction = Transaction::new(kernel).with_retry(retry);
        Self { transaction, steps: Vec::new() }
    }

    /// Adds a command; see [`Transaction::execute`].
    pub fn command<A: Aggregate>(
        mut self,
        on: &Repository<A>,
        key: &str,
        command: A::Command,
    ) -> Self {
        let command = Arc::new(command);
        self.steps.push(CommandStep::of_aggregate::<A>(key, command.clone()));
        self.transaction = self.transaction.execute(on, key, command);
        self
    }

    /// Adds a decision over a query; see [`Transaction::decide`].
    pub fn decide<M: DecisionModel>(mut self, command: M::Command) -> Self {
        let command = Arc::new(command);
        self.steps.push(CommandStep::of_model::<M>(command.clone()));
        self.transaction = self.transaction.decide::<M>(command);
        self
    }

    /// Sets the version that an aggregate must have; see [`Transaction::expecting`].
    pub fn expecting<A: Aggregate>(
        mut self,
        on: &Repository<A>,
        key: &str,
        version: StreamVersion,
    ) -> Self {
        self.transaction = self.transaction.expecting(on, key, version);
        self
    }

    pub(super) fn into_parts(self) -> (Transaction, Vec<CommandStep>) {
        (self.transaction, self.steps)
    }
}

impl fmt::Debug for CommandTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandTransaction").field("steps", &self.steps).finish_non_exhaustive()
    }
}
