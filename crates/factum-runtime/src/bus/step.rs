//! A step of a request.

use std::{
    any::{Any, TypeId},
    fmt,
    sync::Arc,
};

use factum_kernel::{Aggregate, Command, DecisionModel, EncodeError, NamedCommand, StreamVersion};

/// The category of a decision over a query, for labels. No aggregate's category has a `$`.
pub(super) const DECISION: &str = "$decision";
/// The category of a transaction, for labels.
pub(super) const TRANSACTION: &str = "$transaction";

/// The name of a step that only expects a version.
const EXPECTING: &str = "expecting";

/// A step: a command for one aggregate or decision model, as layers see it. Also an aggregate that
/// no command of a transaction is for, if the transaction [expects a version](Self::expected) of
/// it.
///
/// ```
/// use factum_kernel::CommandId;
/// use factum_runtime::CommandRequest;
/// use factum_testing::bank::{Account, AccountCommand};
///
/// let id = CommandId::derived("order-17", "deposit");
/// let deposit = AccountCommand::Deposit { cents: 500 };
/// let request = CommandRequest::new::<Account>(id, "ada", deposit);
/// let names: Vec<_> = request.steps().iter().map(|step| step.name()).collect();
/// assert_eq!(names, ["AccountCommand"]);
/// ```
#[derive(Clone)]
pub struct CommandStep {
    category: &'static str,
    key: Arc<str>,
    name: &'static str,
    command: Arc<dyn Any + Send + Sync>,
    /// The type of the aggregate or the model.
    target: TypeId,
    /// Returns the command as an id names it; `None` if the command has no stored name.
    naming: Option<Naming>,
}

type Naming = fn(&CommandStep) -> Option<Result<NamedCommand, EncodeError>>;

/// The target of a step without a command.
struct Expected;

impl CommandStep {
    pub(super) fn of_aggregate<A: Aggregate>(key: &str, command: Arc<A::Command>) -> Self {
        let name = type_name_of::<A::Command>();
        let target = TypeId::of::<A>();
        Self { category: A::CATEGORY, key: key.into(), name, command, target, naming: None }
    }

    pub(super) fn of_model<M: DecisionModel>(command: Arc<M::Command>) -> Self {
        let name = type_name_of::<M::Command>();
        let target = TypeId::of::<M>();
        Self { category: DECISION, key: Arc::from(""), name, command, target, naming: None }
    }

    pub(super) fn expecting<A: Aggregate>(key: &str, version: StreamVersion) -> Self {
        let target = TypeId::of::<Expected>();
        let command = Arc::new(version);
        let category = A::CATEGORY;
        Self { category, key: key.into(), name: EXPECTING, command, target, naming: None }
    }

    /// The category of the aggregate; `$decision` for a decision model, which has no category.
    pub fn category(&self) -> &'static str {
        self.category
    }

    /// The key of the aggregate; empty for a decision model, which has no key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The name for traces and metrics. It is the stored name if the command derives `Command` and
    /// the application registered its aggregate by that; otherwise it is the name of the command's
    /// type.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The command, if the step is for this kind of aggregate.
    pub fn command<A: Aggregate>(&self) -> Option<&A::Command> {
        self.command.downcast_ref().filter(|_| self.target == TypeId::of::<A>())
    }

    /// The command, if the step is for this kind of decision model.
    pub fn decision<M: DecisionModel>(&self) -> Option<&M::Command> {
        self.command.downcast_ref().filter(|_| self.target == TypeId::of::<M>())
    }

    /// The version that a transaction expects of the aggregate, if the step is no command.
    pub fn expected(&self) -> Option<StreamVersion> {
        self.command.downcast_ref().copied().filter(|_| self.target == TypeId::of::<Expected>())
    }

    /// A shared reference to the command, if the step is for this kind of aggregate.
    pub(super) fn shared<A: Aggregate>(&self) -> Option<Arc<A::Command>> {
        let command = self.command.clone().downcast().ok();
        command.filter(|_| self.target == TypeId::of::<A>())
    }

    /// Uses the stored name of the command in traces and metrics, and lets an id name the command,
    /// if the step is for this kind of aggregate.
    pub(super) fn label_for<A: Aggregate<Command: Command>>(&mut self) {
        if let Some(name) = self.command::<A>().map(Command::name) {
            self.name = name;
            self.name_for::<A>();
        }
    }

    /// Lets an id name the command, if the step is for this kind of aggregate.
    pub(super) fn name_for<A: Aggregate<Command: Command>>(&mut self) {
        if self.target == TypeId::of::<A>() {
            self.naming = Some(|step| {
                Some(NamedCommand::of_aggregate(A::CATEGORY, step.key(), step.command::<A>()?))
            });
        }
    }

    /// Lets an id name the command, if the step is for this kind of decision model.
    pub(super) fn name_for_model<M: DecisionModel<Command: Command>>(&mut self) {
        if self.target == TypeId::of::<M>() {
            self.naming = Some(|step| Some(NamedCommand::of_model(step.decision::<M>()?)));
        }
    }

    /// The command as an id names it; `None` if it has no stored name.
    ///
    /// # Errors
    /// The command can't be serialised.
    pub(super) fn named(&self) -> Option<Result<NamedCommand, EncodeError>> {
        (self.naming?)(self)
    }

    /// True if both are for the same aggregate.
    pub(super) fn is_for_same(&self, other: &Self) -> bool {
        (self.category, &self.key) == (other.category, &other.key)
    }
}

/// The name of a type without its path: `AccountCommand`.
pub(super) fn type_name_of<C>() -> &'static str {
    let name = std::any::type_name::<C>();
    // The parameters of a generic type contain paths too.
    let end = name.find('<').unwrap_or(name.len());
    let start = name[..end].rfind("::").map_or(0, |at| at + 2);
    &name[start..]
}

// A manual implementation, because a command may be private and may not implement `Debug`.
impl fmt::Debug for CommandStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("CommandStep");
        out.field("category", &self.category).field("key", &self.key).field("name", &self.name);
        out.finish_non_exhaustive()
    }
}
