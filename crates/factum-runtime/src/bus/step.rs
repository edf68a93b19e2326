//! One of the things that a request asks for.

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

/// A command for one aggregate or decision model, as layers see it.
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
    /// Of the aggregate or the model.
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

    /// The category of its aggregate; `$decision` for a decision model, which has none.
    pub fn category(&self) -> &'static str {
        self.category
    }

    /// The key of its aggregate; empty for a decision model, which has none.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its name, for traces and metrics: the stored one of a command that derives `Command` and
    /// whose aggregate the application knows as such, else that of its type.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The command, if it is one for this kind of aggregate.
    pub fn command<A: Aggregate>(&self) -> Option<&A::Command> {
        self.command.downcast_ref().filter(|_| self.target == TypeId::of::<A>())
    }

    /// The command, if it is one for this kind of decision model.
    pub fn decision<M: DecisionModel>(&self) -> Option<&M::Command> {
        self.command.downcast_ref().filter(|_| self.target == TypeId::of::<M>())
    }

    /// The command to keep, if it is one for this kind of aggregate.
    pub(super) fn shared<A: Aggregate>(&self) -> Option<Arc<A::Command>> {
        let command = self.command.clone().downcast().ok();
        command.filter(|_| self.target == TypeId::of::<A>())
    }

    pub(super) fn set_name(&mut self, name: &'static str) {
        self.name = name;
    }
}

/// Without the path: `AccountCommand`.
pub(super) fn type_name_of<C>() -> &'static str {
    let name = std::any::type_name::<C>();
    // In the parameters of a generic type are paths too.
    let end = name.find('<').unwrap_or(name.len());
    let start = name[..end].rfind("::").map_or(0, |at| at + 2);
    &name[start..]
}

// What the command holds may be private, and may not be `Debug`.
impl fmt::Debug for CommandStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("CommandStep");
        out.field("category", &self.category).field("key", &self.key).field("name", &self.name);
        out.finish_non_exhaustive()
    }
}
