//! What is common to all that is sent: the errors, and the way through the layers.

use std::error::Error;

use factum_kernel::{ErrorKind, Position};
use factum_projection::WaitError;
use factum_runtime::{BoxError, CommandDone, CommandError, CommandRequest, CommandResponse};

use crate::{
    app::App,
    named::{NamedRejection, UnreadableCommand},
    seen::Readers,
};

/// Why a command, a transaction or a decision has no outcome, or one that not everybody has seen
/// who was to.
///
/// ```
/// use factum::{App, CommandError, EntityError, ErrorKind, SendError};
/// use factum_testing::bank::{Account, AccountCommand, AccountRejection};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let app = App::open("memory:").await?;
/// match app.command::<Account>("ada", AccountCommand::Deposit { cents: 500 }).await {
///     Ok(done) => println!("done at version {}", done.version),
///     // A value of the domain: tell the customer.
///     Err(SendError::Rejected(AccountRejection::NotOpen)) => println!("open it first"),
///     // Nothing was done.
///     Err(error) if error.kind() == ErrorKind::Unavailable => println!("try later"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError<R: Error + 'static> {
    /// The domain says no. Nothing was stored.
    #[error(transparent)]
    Rejected(R),
    /// A layer says no. Nothing was stored.
    #[error("a layer refused the command")]
    Refused(#[source] BoxError),
    /// It failed; see [`EntityError`](factum_runtime::EntityError) for what is known of the
    /// outcome.
    #[error(transparent)]
    Failed(#[from] CommandError),
    /// A layer failed: tower's `Elapsed`, where the command may or may not take effect, its
    /// `Overloaded`, where it does not, or an error of another layer, which has to say.
    #[error("a layer failed")]
    Layer(#[source] BoxError),
    /// What was given by name is no command. Nothing was sent.
    #[error(transparent)]
    Unreadable(#[from] UnreadableCommand),
    /// There is nothing of a name to wait for, or the store does not say. Nothing was sent.
    #[error("the command was not sent")]
    NotSent(#[source] WaitError),
    /// The command took effect, but a read model has not seen it. Don't send it again: read, or
    /// wait for the position.
    #[error("the command took effect, but not everybody has seen it who was to")]
    Unseen {
        /// The position to wait for: of the last event, or of the one that the answer rests on.
        /// `None`: the store did not say which that is.
        position: Option<Position>,
        /// Who has not seen it, and why.
        #[source]
        error: WaitError,
    },
}

impl<R: Error + 'static> SendError<R> {
    /// What the caller can do. A command that took effect is not to be sent again, whatever its
    /// read model waits for. Of a layer's own error nothing is known but what its sources tell.
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

    /// The rejection, if it is one.
    pub fn rejection(&self) -> Option<&R> {
        if let Self::Rejected(rejection) = self { Some(rejection) } else { None }
    }
}

impl App {
    /// Sends a request through the layers. A no of the domain is of type `R`.
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

    /// Sends a request through the layers. A no of the domain is of whatever type it is.
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
            Ok(_) => unreachable!("a response is one of these"),
        }
    }

    /// Waits until the readers have seen a position.
    pub(crate) async fn seen<R: Error + 'static>(
        &self,
        readers: &Readers,
        position: Position,
    ) -> Result<(), SendError<R>> {
        let seen = readers.wait(self.consumers(), position).await;
        seen.map_err(|error| SendError::Unseen { position: Some(position), error })
    }
}
