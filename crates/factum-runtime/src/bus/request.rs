//! What a layer sees of a command.

use std::{any::Any, fmt, sync::Arc};

use factum_kernel::{Aggregate, Metadata, Uuid};

use crate::order::CommandId;

/// A command on its way to its entity. Cheap to clone: a clone is the same command, with the
/// same id.
///
/// ```
/// use factum_runtime::{CommandId, CommandRequest};
/// use factum_testing::bank::{Account, AccountCommand};
///
/// let (id, deposit) = (CommandId::derived(b"17"), AccountCommand::Deposit { cents: 500 });
/// let request = CommandRequest::new::<Account>(id, "ada", deposit);
/// assert_eq!((request.category(), request.key()), ("account", "ada"));
/// assert!(matches!(request.command::<Account>(), Some(AccountCommand::Deposit { cents: 500 })));
/// ```
#[derive(Clone)]
pub struct CommandRequest {
    category: &'static str,
    key: Arc<str>,
    command: Arc<dyn Any + Send + Sync>,
    name: &'static str,
    id: CommandId,
    repeats: Repeats,
    /// For the rule to see and the events to carry; the cause and the conversation are filled in
    /// where they are missing.
    pub metadata: Metadata,
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
        Self {
            category: A::CATEGORY,
            key: key.into(),
            command: Arc::new(command),
            name: type_name_of::<A::Command>(),
            id,
            repeats: Repeats::Anew,
            metadata: Metadata::default(),
        }
    }

    /// Sets the metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Sets the name that traces and metrics know the command by. There should be few: it is a
    /// label.
    #[must_use]
    pub fn with_name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Gives it this id, by which its repeats are recognised: as
    /// [`ask_once`](crate::Entities::ask_once).
    #[must_use]
    pub fn once(mut self, id: CommandId) -> Self {
        (self.id, self.repeats) = (id, Repeats::Recognised);
        self
    }

    /// The category of its aggregate.
    pub fn category(&self) -> &'static str {
        self.category
    }

    /// The key of its aggregate.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its name, for traces and metrics.
    pub fn name(&self) -> &'static str {
        self.name
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

    /// The command, if it is one for this aggregate.
    pub fn command<A: Aggregate>(&self) -> Option<&A::Command> {
        self.command.downcast_ref().filter(|_| self.category == A::CATEGORY)
    }

    /// The command to keep, if it is of this type.
    pub(crate) fn shared<C: Send + Sync + 'static>(&self) -> Option<Arc<C>> {
        self.command.clone().downcast().ok()
    }
}

/// Without the path: `AccountCommand`.
fn type_name_of<C>() -> &'static str {
    let name = std::any::type_name::<C>();
    // In the parameters of a generic type are paths too.
    let end = name.find('<').unwrap_or(name.len());
    let start = name[..end].rfind("::").map_or(0, |at| at + 2);
    &name[start..]
}

// What the command holds may be private, and may not be `Debug`.
impl fmt::Debug for CommandRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("CommandRequest");
        out.field("category", &self.category).field("key", &self.key).field("name", &self.name);
        out.field("id", &self.id).field("is_once", &self.is_once()).finish_non_exhaustive()
    }
}
