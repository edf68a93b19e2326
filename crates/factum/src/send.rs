//! The common parts of sending: the error, and the way through the layers.

use std::error::Error;

use factum_consumer::WaitError;
use factum_kernel::{ErrorKind, Position};
use factum_runtime::{BoxError, CommandDone, CommandError, CommandRequest, CommandResponse};

use crate::{
    app::App,
    named::{NamedRejection, UnreadableCommand},
    seen::Readers,
};

/// The reason why a command, a transaction or a decision has no outcome, or why a read model has
/// not seen the outcome in time.
///
/// ```
/// use factum::{App, ErrorKind, SendError, runtime::{CommandError, EntityError}};
/// use factum_testing::bank::{Account, AccountCommand, AccountRejection};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let app = App::open("memory:").await?;
/// match app.command::<Account>("ada", AccountCommand::Deposit { cents: 500 }).await {
///     Ok(done) => println!("done at version {}", done.version),
///     // A rejection is a value of the domain: show it to the customer.
///     Err(SendError::Rejected(AccountRejection::NotOpen)) => println!("open it first"),
///     // The store is unavailable. Nothing was stored.
///     Err(error) if error.kind() == ErrorKind::Unavailable => println!("try later"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError<R: Error + 'static> {
    /// The domain rejected the request. Nothing was stored.
    #[error(transparent)]
    Rejected(R),
    /// A layer refused the request. Nothing was stored.
    #[error("a layer refused the command")]
    Refused(#[source] BoxError),
    /// The execution failed; see [`EntityError`](factum_runtime::EntityError) for the known facts
    /// about the outcome.
    #[error(transparent)]
    Failed(#[from] CommandError),
    /// A layer failed. After tower's `Elapsed` the command may take effect; after its `Overloaded`
    /// it does not. For an error of another layer, see that layer's documentation.
    #[error("a layer failed")]
    Layer(#[source] BoxError),
    /// The name and the JSON are not those of a command. Nothing was sent.
    #[error(transparent)]
    Unreadable(#[from] UnreadableCommand),
    /// No consumer or projection with a name of `seen_by` can be waited for, or the store could not
    /// tell. Nothing was sent.
    #[error("the command was not sent")]
    NotSent(#[source] WaitError),
    /// The command took effect, but a read model has not handled its events in time. Don't send it
    /// again: read, or wait for the position.
    #[error("the command took effect, but a read model has not shown it in time")]
    Unseen {
        /// The position to wait for: that of the last event, or of the event on which the answer is
        /// based. `None` if the store did not tell it.
        position: Option<Position>,
        /// The read model that has not handled it, and the reason.
        #[source]
        error: WaitError,
    },
}

impl<R: Error + 'static> SendError<R> {
    /// The kind of the error: what the caller can do about it. `Unseen` is a timeout: don't send a
    /// command again that took effect. For a layer's own error, only its sources can tell the kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(_) | Self::Refused(_) => ErrorKind::Rejected,
            Self::Failed(error) => error.kind(),
            Self::Layer(error) => ErrorKind::of(&**error).unwrap_or(ErrorKind::Internal),
            Self::Unreadable(error) => error.kind(),
            Self::NotSent(error) => error.kind(),
            Self::Unseen { .. } => ErrorKind::TimedOut,
        }
    }

    /// The rejection, if the error is one.
    pub fn rejection(&self) -> Option<&R> {
        if let Self::Rejected(rejection) = self { Some(rejection) } else { None }
    }
}

impl App {
    /// Sends a request through the layers. A rejection is of type `R`.
    pub(crate) async fn send<R: Error + Send + Sync + 'static>(
        &self,
        request: CommandRequest,
        readers: &Readers,
    ) -> Result<CommandDone, SendError<R>> {
        let sent = self.send_any(request, readers).await;
        sent.map_err(|error| match error {
            SendError::Rejected(NamedRejection(no)) => match no.downcast() {
                Ok(rejection) => SendError::Rejected(*rejection),
                Err(other) => SendError::Refused(other),
            },
            SendError::Refused(no) => SendError::Refused(no),
            SendError::Failed(error) => SendError::Failed(error),
            SendError::Layer(error) => SendError::Layer(error),
            SendError::Unreadable(error) => SendError::Unreadable(error),
            SendError::NotSent(error) => SendError::NotSent(error),
            SendError::Unseen { position, error } => SendError::Unseen { position, error },
        })
    }

    /// Sends a request through the layers. A rejection may be of any type.
    pub(crate) async fn send_any(
        &self,
        request: CommandRequest,
        readers: &Readers,
    ) -> Result<CommandDone, SendError<NamedRejection>> {
        readers.check(self.consumers()).await.map_err(SendError::NotSent)?;
        match self.commands().send(request).await {
            Ok(CommandResponse::Done(done)) => Ok(done),
            Ok(CommandResponse::Rejected(no)) => Err(SendError::Rejected(NamedRejection(no))),
            Ok(CommandResponse::Refused(no)) => Err(SendError::Refused(no)),
            Err(error) => Err(match error.downcast() {
                Ok(error) => SendError::Failed(*error),
                Err(other) => SendError::Layer(other),
            }),
            Ok(_) => unreachable!("every kind of response is handled above"),
        }
    }

    /// Waits until the readers have handled a position.
    pub(crate) async fn seen<R: Error + 'static>(
        &self,
        readers: &Readers,
        position: Position,
    ) -> Result<(), SendError<R>> {
        let seen = readers.wait(self.consumers(), position).await;
        seen.map_err(|error| SendError::Unseen { position: Some(position), error })
    }
}
