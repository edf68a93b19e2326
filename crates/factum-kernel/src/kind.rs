//! The kind of an error: what the caller can do about it, for every operation and every wrapper.

use std::{error::Error, fmt, sync::Arc};

use crate::error::{StoreError, StoreErrorKind};

/// The kind of an error of Factum: what the caller can do about it. Every public error has a method
/// `kind()`.
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
// The kind is found through the enum, although a transparent error hides the type that it wraps.
/// assert_eq!(ErrorKind::of(&error), Some(ErrorKind::Unavailable));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The domain or a layer refuses. Nothing was stored.
    Rejected,
    /// Other writers were first. Nothing was stored. Load and decide again.
    Conflict,
    /// Nothing was done. Try again later.
    Unavailable,
    /// It may or may not be done. Find out before the request is repeated.
    Unknown,
    /// It was not done within the given time, and may be done later.
    TimedOut,
    /// The request can never succeed. Correct it.
    Invalid,
    /// Stored data contradict themselves, or this program can't read them. Stop, and examine the
    /// store.
    Corrupt,
    /// The component is shut down or has stopped. Nothing was done.
    Closed,
    /// A mistake in the program, or an unforeseen failure. The text and the source say more.
    Internal,
}

impl ErrorKind {
    /// The kind of the first error in a chain of sources that carries one. `None` if no error in
    /// the chain does.
    ///
    /// An outage is always found. A transparent error may hide another kind, such as a conflict.
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

    /// The [`Cause`] of this kind, for an error that has no other source.
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

    /// The [`Cause`] of this kind, for an error whose source is `source` and may have another kind.
    pub fn caused_by(self, source: Arc<dyn Error + Send + Sync>) -> Cause {
        Cause { kind: self, source: Some(source) }
    }

    /// True if something that the request needs was not available: it can't be reached, is shut
    /// down, or was lost during the request. The request itself is not at fault, and may succeed
    /// unchanged.
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

/// The link in a chain of sources that carries the kind of the error before it.
///
/// A transparent error passes on the *source* of the error that it wraps, and hides the rest. So
/// every error that may be an outage has its kind among its sources, where [`ErrorKind::of`] finds
/// it. A text that shows all sources leaves this link out, as [`sentence`] does.
#[derive(Debug, Clone)]
pub struct Cause {
    kind: ErrorKind,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Cause {
    pub(crate) const fn new(kind: ErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// Adds the driver's own error as the source.
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

/// An error and all of its sources in one line, for people and for logs.
///
/// The text of a Factum error does not repeat the text of its source, so the text alone does not
/// show the cause.
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
        // Drivers often repeat the text of the error that they wrap. A kind is for programs.
        if !error.is::<Cause>() && !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        source = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
