//! Requests, as layers see them: commands, transactions and decisions over a query.

use std::{any::Any, fmt, slice, sync::Arc};

use factum_kernel::{
    Aggregate, Command, CommandId, DecisionModel, Metadata, Once, StreamVersion, Transaction, Uuid,
};

use super::{
    error::CommandError,
    step::{CommandStep, DECISION, TRANSACTION},
    transaction::CommandTransaction,
};
use crate::command::ReplyFn;

/// A command on its way to its entity. Cheap to clone. A clone is the same command, with the same
/// id.
///
/// ```
/// use factum_kernel::CommandId;
/// use factum_runtime::CommandRequest;
/// use factum_testing::bank::{Account, AccountCommand};
///
/// let id = CommandId::derived("order-17", "deposit");
/// let deposit = AccountCommand::Deposit { cents: 500 };
/// let request = CommandRequest::new::<Account>(id, "ada", deposit);
/// let [step] = request.steps() else { panic!("a command is one step") };
/// assert_eq!((step.category(), step.key()), ("account", "ada"));
/// assert!(matches!(step.command::<Account>(), Some(AccountCommand::Deposit { cents: 500 })));
/// ```
#[derive(Clone)]
pub struct CommandRequest {
    pub(super) work: Work,
    id: CommandId,
    repeats: Repeats,
    /// The metadata for the rule and for the events. A missing causation or correlation id is
    /// filled in.
    pub metadata: Metadata,
}

/// The work that the request asks for.
#[derive(Clone)]
pub(super) enum Work {
    Command {
        step: CommandStep,
        expected: Option<StreamVersion>,
        /// A `ReplyFn<A>`.
        reply: Option<Arc<dyn Any + Send + Sync>>,
    },
    Together {
        kind: RequestKind,
        transaction: Transaction,
        steps: Arc<[CommandStep]>,
    },
}

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestKind {
    /// One command for one aggregate.
    Command,
    /// Commands and decisions, stored together or not at all.
    Transaction,
    /// One decision over a query.
    Decision,
}

/// The treatment of a repeated command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeats {
    DecidedAgain,
    Recognised,
}

impl CommandRequest {
    /// Makes a request for the aggregate with this key. The command has the name of its type, and
    /// each repeat is decided again.
    pub fn new<A: Aggregate>(id: CommandId, key: &str, command: A::Command) -> Self {
        let step = CommandStep::of_aggregate::<A>(key, Arc::new(command));
        Self::of(id, Work::Command { step, expected: None, reply: None })
    }

    /// Makes a request for commands and decisions that are stored together, or not at all.
    pub fn transaction(id: CommandId, transaction: CommandTransaction) -> Self {
        Self::together(id, RequestKind::Transaction, transaction)
    }

    /// Makes a request for one decision over a query: a transaction with one step.
    pub fn decision<M: DecisionModel>(
        id: CommandId,
        transaction: CommandTransaction,
        command: M::Command,
    ) -> Self {
        Self::together(id, RequestKind::Decision, transaction.decide_unnamed::<M>(command))
    }

    fn together(id: CommandId, kind: RequestKind, transaction: CommandTransaction) -> Self {
        let (transaction, steps) = transaction.into_parts();
        Self::of(id, Work::Together { kind, transaction, steps: steps.into() })
    }

    fn of(id: CommandId, work: Work) -> Self {
        Self { work, id, repeats: Repeats::DecidedAgain, metadata: Metadata::default() }
    }

    /// Sets the metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Lets an [id](Self::once) of the request name the commands for this kind of aggregate by
    /// their stored names.
    #[must_use]
    pub fn named<A: Aggregate<Command: Command>>(mut self) -> Self {
        self.steps_mut().iter_mut().for_each(CommandStep::name_for::<A>);
        self
    }

    /// Like [`named`](Self::named), for the commands of this kind of decision model.
    #[must_use]
    pub fn named_decision<M: DecisionModel<Command: Command>>(mut self) -> Self {
        self.steps_mut().iter_mut().for_each(CommandStep::name_for_model::<M>);
        self
    }

    /// Sets the id by which repeats of the request are recognised: see
    /// [`ask_once`](crate::Entities::ask_once). An id names commands, so each command must have its
    /// stored name; otherwise the answer is [`Unnamed`](super::CommandError::Unnamed).
    #[must_use]
    pub fn once(mut self, id: CommandId) -> Self {
        (self.id, self.repeats) = (id, Repeats::Recognised);
        self
    }

    /// Executes a command only if its aggregate has this version. Otherwise the answer is
    /// [`Conflict`](crate::EntityError::Conflict). Has no effect on a transaction or a decision.
    #[must_use]
    pub fn expecting(mut self, version: StreamVersion) -> Self {
        if let Work::Command { expected, .. } = &mut self.work {
            *expected = Some(version);
        }
        self
    }

    /// Computes a reply from the state after the command, for
    /// [`CommandDone::into_outcome`](super::CommandDone::into_outcome). Has no effect on a request
    /// that is not a command for this kind of aggregate.
    #[must_use]
    pub fn replying<A: Aggregate, R: Send + Sync + 'static>(
        mut self,
        compute: impl Fn(&A) -> R + Send + Sync + 'static,
    ) -> Self {
        let compute: ReplyFn<A> = Arc::new(move |state| Box::new(compute(state)));
        if let Work::Command { reply, .. } = &mut self.work {
            *reply = Some(Arc::new(compute));
        }
        self
    }

    /// The kind of the request.
    pub fn kind(&self) -> RequestKind {
        match &self.work {
            Work::Command { .. } => RequestKind::Command,
            Work::Together { kind, .. } => *kind,
        }
    }

    /// All steps of the request, in order. A command or a decision has one step. After the steps of
    /// a transaction come the aggregates of which it only [expects a
    /// version](CommandStep::expected).
    pub fn steps(&self) -> &[CommandStep] {
        match &self.work {
            Work::Command { step, .. } => slice::from_ref(step),
            Work::Together { steps, .. } => steps,
        }
    }

    /// The keys and commands for this kind of aggregate, in order.
    pub fn commands<A: Aggregate>(&self) -> impl Iterator<Item = (&str, &A::Command)> {
        self.steps().iter().filter_map(|step| Some((step.key(), step.command::<A>()?)))
    }

    /// The commands for decision models of this kind, in order.
    pub fn decisions<M: DecisionModel>(&self) -> impl Iterator<Item = &M::Command> {
        self.steps().iter().filter_map(CommandStep::decision::<M>)
    }

    /// The label of the target in traces and metrics: the category of the aggregate, `$decision` or
    /// `$transaction`.
    pub fn category(&self) -> &'static str {
        match &self.work {
            Work::Command { step, .. } => step.category(),
            Work::Together { kind: RequestKind::Transaction, .. } => TRANSACTION,
            Work::Together { .. } => DECISION,
        }
    }

    /// The label of the request in traces and metrics: the command's name, or `transaction`.
    pub fn name(&self) -> &'static str {
        match &self.work {
            Work::Together { kind: RequestKind::Transaction, .. } => "transaction",
            _ => self.steps().first().map_or("nothing", CommandStep::name),
        }
    }

    pub(super) fn steps_mut(&mut self) -> &mut [CommandStep] {
        match &mut self.work {
            Work::Command { step, .. } => slice::from_mut(step),
            Work::Together { steps, .. } => Arc::make_mut(steps),
        }
    }

    /// The id of the request. It is the causation id of its events, unless the metadata has
    /// another.
    pub fn id(&self) -> CommandId {
        self.id
    }

    /// True if repeats of the request are recognised.
    pub fn is_once(&self) -> bool {
        self.repeats == Repeats::Recognised
    }

    /// The id with the commands that it names; `None` if repeats are not recognised.
    pub(super) fn identity(&self) -> Result<Option<Once>, CommandError> {
        if !self.is_once() {
            return Ok(None);
        }
        let commands = self.steps().iter().filter(|step| step.expected().is_none());
        let named = commands.map(|step| {
            let category = step.category();
            let command = step.name();
            let named = step.named().ok_or(CommandError::Unnamed { category, command })?;
            named.map_err(|error| CommandError::Entity(error.into()))
        });
        let named: Result<Vec<_>, _> = named.collect();
        Ok(Some(Once::new(self.id, named?)))
    }

    /// The correlation id: that of the metadata, or else the id of this request.
    pub fn correlation_id(&self) -> Uuid {
        self.metadata.correlation_id.unwrap_or(self.id.as_uuid())
    }
}

// A manual implementation, because a command may be private and may not implement `Debug`.
impl fmt::Debug for CommandRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("CommandRequest");
        out.field("steps", &self.steps());
        out.field("id", &self.id).field("is_once", &self.is_once()).finish_non_exhaustive()
    }
}
