//! Why a command has no outcome.

use factum_kernel::{ErrorKind, TransactionError};

use crate::error::EntityError;

/// Any error, as the layers of tower pass it on.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the bus gave no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The bus knows no aggregate of this category. Nothing happened.
    #[error(
        "the command bus knows no such aggregate, add its entities to the router: category={0}"
    )]
    UnknownAggregate(&'static str),
    /// Two aggregates have the category, and the command is for the one that the bus does not
    /// know. Nothing happened.
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
    /// The entity gave no outcome.
    #[error(transparent)]
    Entity(#[from] EntityError),
    /// A transaction or a decision was not stored, or is not known to be.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
}

impl CommandError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownAggregate(_) | Self::WrongCommand { .. } => ErrorKind::Invalid,
            Self::Entity(error) => error.kind(),
            Self::Transaction(error) => error.kind(),
        }
    }

    /// What `error.type` is in traces and `error` in metrics; one of some fifteen words.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::UnknownAggregate(_) => "unknown_aggregate",
            Self::WrongCommand { .. } => "wrong_command",
            Self::Entity(error) => match error {
                EntityError::Busy(_) => "busy",
                EntityError::Deadline(_) => "deadline",
                EntityError::Closed(_) => "closed",
                EntityError::Quarantined { .. } => "quarantined",
                EntityError::Panicked { .. } => "panicked",
                EntityError::Lost(_) => "lost",
                EntityError::Load(_) => "load",
                EntityError::Encode(_) => "encode",
                EntityError::Conflict(_) => "conflict",
                EntityError::Indeterminate(_) => "indeterminate",
                EntityError::Store(_) => "store",
            },
            Self::Transaction(error) => match error {
                TransactionError::Rejected(_) => "rejected",
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

/// What an error that went through layers is called; `_OTHER` if it is none of ours.
pub(crate) fn label_of(error: &BoxError) -> &'static str {
    error.downcast_ref().map_or("_OTHER", CommandError::label)
}

/// Why a dispatched command was not executed, or is not known to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DispatchError<R: std::error::Error + 'static> {
    /// The domain says no. Nothing was stored.
    #[error(transparent)]
    Rejected(R),
    /// A layer says no. Nothing was stored.
    #[error("the command was refused")]
    Refused(#[source] BoxError),
    /// The bus or the entity; see [`EntityError`] for what is known of the outcome.
    #[error(transparent)]
    Failed(#[from] CommandError),
    /// A layer failed: tower's `Elapsed`, where the command may or may not take effect, its
    /// `Overloaded`, where it does not, or an error of another layer, which has to say.
    #[error("a layer of the command bus failed")]
    Layer(#[source] BoxError),
}

impl<R: std::error::Error + 'static> DispatchError<R> {
    /// What the caller can do. Of a layer's own error nothing is known but what its sources tell.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(_) | Self::Refused(_) => ErrorKind::Rejected,
            Self::Failed(error) => error.kind(),
            Self::Layer(error) => ErrorKind::of(&**error).unwrap_or(ErrorKind::Internal),
        }
    }

    /// The rejection, if it is one.
    pub fn rejection(&self) -> Option<&R> {
        if let Self::Rejected(rejection) = self { Some(rejection) } else { None }
    }
}
