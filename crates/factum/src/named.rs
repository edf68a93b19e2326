//! Commands by name, for servers and tools.

use std::{collections::HashMap, error::Error, fmt, future::IntoFuture, pin::Pin, time::Duration};

use factum_kernel::{
    Aggregate, CodecError, Command, CommandId, ErrorKind, Event, Json, Metadata, Position,
    StreamVersion,
};
use factum_runtime::{BoxError, CommandDone, CommandError, CommandRequest};
use serde::Serialize;

use crate::{app::App, seen::Readers, send::SendError};

type Sent = Result<NamedOutcome, SendError<NamedRejection>>;
type Sending = Pin<Box<dyn Future<Output = Sent> + Send>>;

/// The outcome of a command that was sent by name; serialisable as JSON.
///
/// ```
/// use factum::App;
/// use factum_testing::bank::Account;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let app = App::builder().commands::<Account>().open("memory:").await?;
/// let open = r#"{"owner": "Ada", "email": "ada@example.org"}"#;
/// let opened = app.command_json("account", "ada", "account.open", open).await?;
/// let text = r#"{"version":1,"position":1,"events":["account.opened"],"replayed":false}"#;
/// assert_eq!(serde_json::to_string(&opened)?, text);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NamedOutcome {
    /// The version after the command.
    pub version: StreamVersion,
    /// The position of the command's last event; `None` if there was no event.
    pub position: Option<Position>,
    /// The stored names of the command's events.
    pub events: Vec<String>,
    /// True if an earlier attempt stored the command, which was recognised by its id.
    pub replayed: bool,
}

/// The rejection of a command that was sent by name.
#[derive(Debug)]
pub struct NamedRejection(pub(crate) BoxError);

impl NamedRejection {
    /// The rejection, if it is of this type.
    pub fn downcast_ref<R: Error + 'static>(&self) -> Option<&R> {
        self.0.downcast_ref()
    }
}

impl fmt::Display for NamedRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for NamedRejection {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// The reason why no command could be made from a name and JSON. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnreadableCommand {
    /// No registered aggregate of this category takes commands by name.
    #[error(
        "no aggregate of this category takes commands by name, name it with AppBuilder::commands: \
         category={0:?}"
    )]
    UnknownCategory(String),
    /// The aggregate has no command with this name.
    #[error(
        "the aggregate has no such command, use one of {names}: category={category} name={name:?}",
        names = .known.join(", ")
    )]
    UnknownName {
        /// The category.
        category: String,
        /// The unknown name.
        name: String,
        /// The names of the aggregate's commands.
        known: &'static [&'static str],
    },
    /// The JSON does not match the fields of the command.
    #[error("the JSON does not match the fields of the command, correct it: {reason}: name={name}")]
    Malformed {
        /// The name of the command.
        name: String,
        /// The field at fault, and its place in the JSON.
        reason: CodecError,
    },
}

impl UnreadableCommand {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// The result of reading a request; `None` if no command has the name.
type Read = Option<Result<CommandRequest, CodecError>>;

/// The functions of an aggregate that read its commands by name and convert their outcomes.
#[derive(Debug, Clone, Copy)]
struct Named {
    names: &'static [&'static str],
    read: fn(&App, &str, &str, &[u8]) -> Read,
    outcome: fn(CommandDone) -> Option<NamedOutcome>,
}

/// The aggregates that take commands by name, by category.
#[derive(Debug, Default)]
pub(crate) struct Names(HashMap<&'static str, Named>);

impl Names {
    pub(crate) fn add<A: Aggregate<Command: Command>>(&mut self) {
        let names = A::Command::NAMES;
        self.0.insert(A::CATEGORY, Named { names, read: read::<A>, outcome: outcome_of::<A> });
    }
}

fn read<A: Aggregate<Command: Command>>(app: &App, key: &str, name: &str, json: &[u8]) -> Read {
    let command = A::Command::from_fields::<Json>(name, json)?;
    Some(command.map(|command| app.request::<A>(key, command).named::<A>()))
}

fn outcome_of<A: Aggregate>(done: CommandDone) -> Option<NamedOutcome> {
    let outcome = done.into_outcome::<A, ()>()?;
    let name = |event: &A::Event| event.event_type().name.as_str().to_owned();
    Some(NamedOutcome {
        version: outcome.version,
        position: outcome.position,
        events: outcome.events.iter().map(name).collect(),
        replayed: outcome.replayed,
    })
}

/// A command by name that is sent when this is awaited. See [`App::command_json`].
#[must_use = "the command is sent only when it is awaited"]
pub struct SendNamed {
    app: App,
    request: Result<(CommandRequest, Named), UnreadableCommand>,
    readers: Readers,
}

impl App {
    /// Sends the command with this stored name to the aggregate with this category and key, as
    /// [`command`](Self::command) does. For servers and tools, which know the types only at run
    /// time. The JSON has the command's fields: an object for named fields, the field itself for
    /// one unnamed field, an array for several, and `{}` for a command without fields. No text
    /// stands for `{}`, but not for an unnamed field. A field that the command does not have is an
    /// error, unless one of its fields has serde's `flatten`.
    ///
    /// The aggregate must be registered by [`AppBuilder::commands`].
    ///
    /// ```
    /// use factum::{App, CommandId, SendError};
    /// use factum_testing::bank::Account;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = App::builder().commands::<Account>().open("memory:").await?;
    /// # let open = r#"{"owner": "Ada", "email": "ada@example.org"}"#;
    /// # app.command_json("account", "ada", "account.open", open).await?;
    /// let deposit = app.command_json("account", "ada", "account.deposit", r#"{"cents": 500}"#);
    /// let done = deposit.once(CommandId::derived("order-17", "deposit")).await?;
    /// assert_eq!((done.version.value(), done.events), (2, vec!["account.deposited".into()]));
    ///
    /// let unknown = app.command_json("account", "ada", "account.depose", "{}").await;
    /// assert!(matches!(unknown, Err(SendError::Unreadable(_))));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The future returns a [`SendError`].
    ///
    /// # Cancel safety
    /// See [`command`](Self::command).
    ///
    /// [`AppBuilder::commands`]: crate::AppBuilder::commands
    pub fn command_json(
        &self,
        category: &str,
        key: &str,
        name: &str,
        json: impl AsRef<[u8]>,
    ) -> SendNamed {
        let request = self.read_named(category, key, name, json.as_ref());
        SendNamed { app: self.clone(), request, readers: Readers::none() }
    }

    fn read_named(
        &self,
        category: &str,
        key: &str,
        name: &str,
        json: &[u8],
    ) -> Result<(CommandRequest, Named), UnreadableCommand> {
        let unknown = || UnreadableCommand::UnknownCategory(category.into());
        let named = *self.names().0.get(category).ok_or_else(unknown)?;
        match (named.read)(self, key, name, json) {
            Some(Ok(request)) => Ok((request, named)),
            Some(Err(reason)) => Err(UnreadableCommand::Malformed { name: name.into(), reason }),
            None => Err(UnreadableCommand::UnknownName {
                category: category.into(),
                name: name.into(),
                known: named.names,
            }),
        }
    }
}

impl SendNamed {
    fn with(mut self, change: impl FnOnce(CommandRequest) -> CommandRequest) -> Self {
        self.request = self.request.map(|(request, named)| (change(request), named));
        self
    }

    /// See [`SendCommand::once`](crate::aggregate::SendCommand::once).
    pub fn once(self, id: CommandId) -> Self {
        self.with(|request| request.once(id))
    }

    /// See [`SendCommand::with_metadata`](crate::aggregate::SendCommand::with_metadata).
    pub fn with_metadata(self, metadata: Metadata) -> Self {
        self.with(|request| request.with_metadata(metadata))
    }

    /// See [`SendCommand::expecting`](crate::aggregate::SendCommand::expecting).
    pub fn expecting(self, version: StreamVersion) -> Self {
        self.with(|request| request.expecting(version))
    }

    /// See [`SendCommand::seen_by`](crate::aggregate::SendCommand::seen_by).
    pub fn seen_by(mut self, name: impl Into<String>) -> Self {
        self.readers.add(name.into());
        self
    }

    /// Sets the longest wait for all readers together, from the moment the command took effect.
    pub fn within(mut self, within: Duration) -> Self {
        self.readers.within(within);
        self
    }

    async fn send(self) -> Sent {
        let Self { app, request, readers } = self;
        let (request, named) = request.map_err(SendError::Unreadable)?;
        let category = request.category();
        let command = request.name();
        let stream = app.stream_of(&request);
        let done = app.send_any(request, &readers).await?;
        let outcome = (named.outcome)(done);
        let outcome = outcome.ok_or(CommandError::WrongCommand { category, command })?;
        app.wait_for_readers(&readers, stream, outcome.position, outcome.version).await?;
        Ok(outcome)
    }
}

impl IntoFuture for SendNamed {
    type Output = Sent;
    type IntoFuture = Sending;

    fn into_future(self) -> Sending {
        Box::pin(self.send())
    }
}

impl fmt::Debug for SendNamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("SendNamed");
        out.field("request", &self.request).field("readers", &self.readers);
        out.finish_non_exhaustive()
    }
}
