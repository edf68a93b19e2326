//! Errors of the command bus.

use factum_kernel::{ErrorKind, TransactionError};

use crate::error::EntityError;

/// Any error, as tower's layers pass it on.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The reason why the bus gave no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The bus has no aggregate with this category. Nothing happened.
    #[error(
        "the command bus knows no such aggregate, add its entities to the router: category={0}"
    )]
    UnknownAggregate(&'static str),
    /// Two aggregates have this category, and the bus does not have the one that the command is
    /// for: nothing happened. Or a layer replaced the request by one for another command, and the
    /// answer is not that of the command that was sent: that other command may have taken effect.
    #[error(
        "the command is not one of the aggregate that the bus knows under this category, give one \
         of the two another: category={category} command={command}"
    )]
    WrongCommand {
        /// The category.
        category: &'static str,
        /// The command's name.
        command: &'static str,
    },
    /// The request has an id, and a command without a stored name, which an id can't name. Nothing
    /// happened.
    #[error(
        "an id names commands by their stored names, and this one has none: derive Command, and \
         register it with AppBuilder::commands: category={category} command={command}"
    )]
    Unnamed {
        /// The category.
        category: &'static str,
        /// The name of the command's type.
        command: &'static str,
    },
    /// The entity gave no outcome.
    #[error(transparent)]
    Entity(#[from] EntityError),
    /// A transaction or a decision was not stored, or it is unknown whether it was.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
}

impl CommandError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownAggregate(_) | Self::WrongCommand { .. } | Self::Unnamed { .. } => {
                ErrorKind::Invalid
            }
            Self::Entity(error) => error.kind(),
            Self::Transaction(error) => error.kind(),
        }
    }

    /// The value of `error.type` in traces and of `error` in metrics; one of about twenty words.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::UnknownAggregate(_) => "unknown_aggregate",
            Self::WrongCommand { .. } => "wrong_command",
            Self::Unnamed { .. } => "unnamed",
            Self::Entity(error) => match error {
                EntityError::Busy(_) => "busy",
                EntityError::Deadline(_) => "deadline",
                EntityError::Closed(_) => "closed",
                EntityError::Quarantined { .. } => "quarantined",
                EntityError::Panicked { .. } => "panicked",
                EntityError::ReplyPanicked { .. } => "reply_panicked",
                EntityError::IdTaken(_) => "id_taken",
                EntityError::Lost(_) => "lost",
                EntityError::Load(_) => "load",
                EntityError::Encode(_) => "encode",
                EntityError::Conflict(_) => "conflict",
                EntityError::Indeterminate(_) => "indeterminate",
                EntityError::Store(_) => "store",
            },
            Self::Transaction(error) => match error {
                TransactionError::Rejected(_) => "rejected",
                TransactionError::Unchanged { .. } => "unchanged",
                TransactionError::IdTaken(_) => "id_taken",
                TransactionError::Conflict(_) => "conflict",
                TransactionError::Overtaken { .. } => "overtaken",
                TransactionError::Load(_) => "load",
                TransactionError::Encode(_) => "encode",
                TransactionError::Indeterminate(_) => "indeterminate",
                TransactionError::Store(_) => "store",
                _ => "_OTHER",
            },
        }
    }
}

/// The label of an error that passed through layers; `_OTHER` if it is not one of Factum's errors.
pub(crate) fn label_of(error: &BoxError) -> &'static str {
    error.downcast_ref().map_or("_OTHER", CommandError::label)
}

/// The reason why a dispatched command was not executed, or why it is not known whether it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DispatchError<R: std::error::Error + 'static> {
    /// The domain rejected the command. Nothing was stored.
    #[error(transparent)]
    Rejected(R),
    /// A layer refused the command. Nothing was stored.
    #[error("the command was refused")]
    Refused(#[source] BoxError),
    /// The bus or the entity failed; see [`EntityError`] for the known facts about the outcome.
    #[error(transparent)]
    Failed(#[from] CommandError),
    /// A layer failed. After tower's `Elapsed` the command may take effect; after its `Overloaded`
    /// it does not. For an error of another layer, see that layer's documentation.
    #[error("a layer of the command bus failed")]
    Layer(#[source] BoxError),
}

impl<R: std::error::Error + 'static> DispatchError<R> {
    /// The kind of the error: what the caller can do about it. For a layer's own error, only its
    /// sources can tell the kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(_) | Self::Refused(_) => ErrorKind::Rejected,
            Self::Failed(error) => error.kind(),
            Self::Layer(error) => ErrorKind::of(&**error).unwrap_or(ErrorKind::Internal),
        }
    }

    /// The rejection, if the error is one.
    pub fn rejection(&self) -> Option<&R> {
        if let Self::Rejected(rejection) = self { Some(rejection) } else { None }
    }
}
