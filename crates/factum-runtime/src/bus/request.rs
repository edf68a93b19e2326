//! What a layer sees of a command, of a transaction or of a decision over a query.

use std::{any::Any, fmt, slice, sync::Arc};

use factum_kernel::{Aggregate, DecisionModel, Metadata, StreamVersion, Transaction, Uuid};

use super::{
    step::{CommandStep, DECISION, TRANSACTION},
    transaction::CommandTransaction,
};
use crate::order::{CommandId, ReplyFn};

/// A command on its way to its entity. Cheap to clone: a clone is the same command, with the
/// same id.
///
/// ```
/// use factum_runtime::{CommandId, CommandRequest};
/// use factum_testing::bank::{Account, AccountCommand};
///
/// let (id, deposit) = (CommandId::derived(b"17"), AccountCommand::Deposit { cents: 500 });
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
    /// For the rule to see and the events to carry; the cause and the conversation are filled in
    /// where they are missing.
    pub metadata: Metadata,
}

/// What is to be done.
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

/// What a request is.
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

/// What a repeated command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeats {
    Anew,
    Recognised,
}

impl CommandRequest {
    /// A command for the aggregate with this key. Its name is that of the command's type, and it
    /// is decided as often as it is sent.
    pub fn new<A: Aggregate>(id: CommandId, key: &str, command: A::Command) -> Self {
        let step = CommandStep::of_aggregate::<A>(key, Arc::new(command));
        Self::of(id, Work::Command { step, expected: None, reply: None })
    }

    /// Commands and decisions that are stored together, or not at all.
    pub fn transaction(id: CommandId, transaction: CommandTransaction) -> Self {
        Self::together(id, RequestKind::Transaction, transaction)
    }

    /// One decision over a query, as the one step of a transaction that has none yet.
    pub fn decision<M: DecisionModel>(
        id: CommandId,
        transaction: CommandTransaction,
        command: M::Command,
    ) -> Self {
        Self::together(id, RequestKind::Decision, transaction.decide::<M>(command))
    }

    fn together(id: CommandId, kind: RequestKind, transaction: CommandTransaction) -> Self {
        let (transaction, steps) = transaction.into_parts();
        Self::of(id, Work::Together { kind, transaction, steps: steps.into() })
    }

    fn of(id: CommandId, work: Work) -> Self {
        Self { work, id, repeats: Repeats::Anew, metadata: Metadata::default() }
    }

    /// Sets the metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Gives it this id, by which its repeats are recognised: as
    /// [`ask_once`](crate::Entities::ask_once).
    #[must_use]
    pub fn once(mut self, id: CommandId) -> Self {
        (self.id, self.repeats) = (id, Repeats::Recognised);
        self
    }

    /// Executes a command only on this version of its aggregate; on another one it is answered
    /// with [`Conflict`](crate::EntityError::Conflict). Of a request that is no command it says
    /// nothing.
    #[must_use]
    pub fn expecting(mut self, version: StreamVersion) -> Self {
        if let Work::Command { expected, .. } = &mut self.work {
            *expected = Some(version);
        }
        self
    }

    /// Computes a reply from the state after the command, for
    /// [`CommandDone::into_outcome`](super::CommandDone::into_outcome). Of a request that is no
    /// command for this kind of aggregate it says nothing.
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

    /// What it is.
    pub fn kind(&self) -> RequestKind {
        match &self.work {
            Work::Command { .. } => RequestKind::Command,
            Work::Together { kind, .. } => *kind,
        }
    }

    /// All that it asks for, in order: one step for a command or a decision.
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

    /// The label for traces and metrics that says for whom it is: the category of its aggregate,
    /// `$decision` or `$transaction`.
    pub fn category(&self) -> &'static str {
        match &self.work {
            Work::Command { step, .. } => step.category(),
            Work::Together { kind: RequestKind::Transaction, .. } => TRANSACTION,
            Work::Together { .. } => DECISION,
        }
    }

    /// The label for traces and metrics that says what it asks for: the command's name, or
    /// `transaction`.
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

    /// Its identity: the cause of its events, unless the metadata names another.
    pub fn id(&self) -> CommandId {
        self.id
    }

    /// Whether its repeats are recognised.
    pub fn is_once(&self) -> bool {
        self.repeats == Repeats::Recognised
    }

    /// The conversation: that of the metadata, else the one that this command begins.
    pub fn correlation_id(&self) -> Uuid {
        self.metadata.correlation_id.unwrap_or(self.id.as_uuid())
    }
}

// What the commands hold may be private, and may not be `Debug`.
impl fmt::Debug for CommandRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("CommandRequest");
        out.field("steps", &self.steps());
        out.field("id", &self.id).field("is_once", &self.is_once()).finish_non_exhaustive()
    }
}
