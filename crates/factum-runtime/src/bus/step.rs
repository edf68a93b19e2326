//! A step of a request.

use std::{
    any::{Any, TypeId},
    fmt,
    sync::Arc,
};

use factum_kernel::{Aggregate, DecisionModel};

/// The category of a decision over a query, for labels. No aggregate's category has a `$`.
pub(super) const DECISION: &str = "$decision";
/// The category of a transaction, for labels.
pub(super) const TRANSACTION: &str = "$transaction";

/// A step: a command for one aggregate or decision model, as layers see it.
///
/// ```
/// use factum_runtime::{CommandId, CommandRequest};
/// use factum_testing::bank::{Account, AccountCommand};
///
/// let (id, deposit) = (CommandId::derived(b"17"), AccountCommand::Deposit { cents: 500 });
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
}

impl CommandStep {
    pub(super) fn of_aggregate<A: Aggregate>(key: &str, command: Arc<A::Command>) -> Self {
        let name = type_name_of::<A::Command>();
        let target = TypeId::of::<A>();
        Self { category: A::CATEGORY, key: key.into(), name, command, target }
    }

    pub(super) fn of_model<M: DecisionModel>(command: Arc<M::Command>) -> Self {
        let name = type_name_of::<M::Command>();
        let target = TypeId::of::<M>();
        Self { category: DECISION, key: Arc::from(""), name, command, target }
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

    /// A shared reference to the command, if the step is for this kind of aggregate.
    pub(super) fn shared<A: Aggregate>(&self) -> Option<Arc<A::Command>> {
        let command = self.command.clone().downcast().ok();
        command.filter(|_| self.target == TypeId::of::<A>())
    }

    pub(super) fn set_name(&mut self, name: &'static str) {
        self.name = name;
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
