//! What a caller can do about an error, whichever operation it is of and however it is wrapped.

use std::{error::Error, fmt, sync::Arc};

use crate::error::{StoreError, StoreErrorKind};

/// What a caller can do about an error of Factum's. Every public error answers it by `kind()`.
///
/// ```
/// use factum_kernel::{ErrorKind, ExecuteError, StoreError};
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("there is not enough money")]
/// struct TooLittle;
///
/// #[derive(Debug, thiserror::Error)]
/// enum Failed {
///     #[error(transparent)]
///     Transfer(#[from] ExecuteError<TooLittle>),
/// }
///
/// let error = Failed::from(ExecuteError::Store(StoreError::unavailable("no answer")));
/// // Found through the enum, though a transparent error hides the type that it wraps.
/// assert_eq!(ErrorKind::of(&error), Some(ErrorKind::Unavailable));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The domain or a layer says no. Nothing was stored.
    Rejected,
    /// Other writers were first. Nothing was stored; load and decide again.
    Conflict,
    /// Nothing was done; try again later.
    Unavailable,
    /// It may or may not be done: look before it is repeated.
    Unknown,
    /// It was not done within the time that was given, and may be done later.
    TimedOut,
    /// The request can never succeed; correct it.
    Invalid,
    /// Stored data contradict themselves, or this program can't read them; stop and look.
    Corrupt,
    /// What was asked is shut down or has stopped. Nothing was done.
    Closed,
    /// A mistake in the program, or something unforeseen; the text and the source tell.
    Internal,
}

impl ErrorKind {
    /// The kind of the first error of Factum's in a chain of sources that tells one. `None`:
    /// nothing in the chain does.
    ///
    /// An outage is always found. Another kind, such as a conflict, may be hidden by a transparent
    /// error.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(cause) = error.downcast_ref::<Cause>() {
                return Some(cause.kind);
            }
            if let Some(error) = error.downcast_ref::<StoreError>() {
                return Some(error.kind().into());
            }
            next = error.source();
        }
        None
    }

    /// The link that stands in the sources of an error of this kind that has no other source.
    pub fn cause(self) -> &'static Cause {
        match self {
            Self::Rejected => const { &Cause::new(Self::Rejected) },
            Self::Conflict => const { &Cause::new(Self::Conflict) },
            Self::Unavailable => const { &Cause::new(Self::Unavailable) },
            Self::Unknown => const { &Cause::new(Self::Unknown) },
            Self::TimedOut => const { &Cause::new(Self::TimedOut) },
            Self::Invalid => const { &Cause::new(Self::Invalid) },
            Self::Corrupt => const { &Cause::new(Self::Corrupt) },
            Self::Closed => const { &Cause::new(Self::Closed) },
            Self::Internal => const { &Cause::new(Self::Internal) },
        }
    }

    /// Whether something that the request needs was away: it can't be reached, is shut down, or
    /// was lost midway. What was asked for is not at fault, and may succeed unchanged.
    pub fn is_outage(self) -> bool {
        matches!(self, Self::Unavailable | Self::Unknown | Self::Closed)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rejected => "rejected",
            Self::Conflict => "other writers were first",
            Self::Unavailable => "unavailable, try again later",
            Self::Unknown => "the outcome is unknown",
            Self::TimedOut => "not done in time",
            Self::Invalid => "the request can't succeed",
            Self::Corrupt => "stored data can't be read",
            Self::Closed => "shut down",
            Self::Internal => "internal",
        })
    }
}

impl From<StoreErrorKind> for ErrorKind {
    fn from(kind: StoreErrorKind) -> Self {
        match kind {
            StoreErrorKind::Unavailable => Self::Unavailable,
            StoreErrorKind::Invalid => Self::Invalid,
            StoreErrorKind::Corrupt => Self::Corrupt,
            StoreErrorKind::Closed => Self::Closed,
            StoreErrorKind::Internal => Self::Internal,
        }
    }
}

/// The link in a chain of sources that tells the kind of the error before it.
///
/// A transparent error passes on the *source* of what it wraps, and hides the rest. So the kind
/// stands in the sources of every error that may be an outage, where [`ErrorKind::of`] finds it. A
/// text of all sources leaves this link out, as [`sentence`] does.
#[derive(Debug, Clone)]
pub struct Cause {
    kind: ErrorKind,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Cause {
    pub(crate) const fn new(kind: ErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// Adds the driver's own error.
    pub(crate) fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// An error and all that is behind it, in one line: for people, and for logs.
///
/// The text of an error of Factum's does not repeat that of its source, so that whoever shows the
/// text alone leaves out the cause.
///
/// ```
/// use factum_kernel::{AppendError, StoreError, sentence};
///
/// let driver = std::io::Error::other("no route");
/// let away = StoreError::unavailable("the server can't be reached").with_source(driver);
/// assert_eq!(sentence(&away), "the server can't be reached: no route");
/// let error = AppendError::Indeterminate(away);
/// assert!(sentence(&error).ends_with("is unknown: the server can't be reached: no route"));
/// ```
pub fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let reason = error.to_string();
        // Drivers like to repeat the text of what they wrap; a kind is for programs.
        if !error.is::<Cause>() && !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        source = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
