//! The early end of a case, and the checks that cause it.

use std::fmt;

use factum_kernel::{AppendError, ChangeError, StoreError, WriteError};

/// The reason why a case ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The store does not claim the guarantee that the case tests.
    Skipped(&'static str),
    /// The store broke a law.
    Failed(String),
}

/// The result of a case.
pub(crate) type CaseResult<T = ()> = Result<T, Stop>;

impl Stop {
    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        Self::Failed(reason.into())
    }

    /// Adds the place of the failure.
    pub(crate) fn within(self, place: impl fmt::Display) -> Self {
        match self {
            Self::Failed(reason) => Self::Failed(format!("{place}: {reason}")),
            skipped @ Self::Skipped(_) => skipped,
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(format!("the store answered with an error it should not have: {error:?}"))
    }
}

impl From<ChangeError> for Stop {
    fn from(error: ChangeError) -> Self {
        Self::Failed(format!("a change that should succeed was answered with {error:?}"))
    }
}

impl From<AppendError> for Stop {
    fn from(error: AppendError) -> Self {
        Self::Failed(format!("an append that should succeed was answered with {error:?}"))
    }
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Self {
        Self::Failed(format!("a write that should succeed was answered with {error:?}"))
    }
}

/// Adds the place to a failure.
pub(crate) trait Within<T> {
    fn within(self, place: impl FnOnce() -> String) -> CaseResult<T>;
}

impl<T, E: Into<Stop>> Within<T> for Result<T, E> {
    fn within(self, place: impl FnOnce() -> String) -> CaseResult<T> {
        self.map_err(|e| e.into().within(place()))
    }
}

/// Ends the case with a sentence unless a condition holds.
macro_rules! ensure {
    ($holds:expr, $($sentence:tt)+) => {
        if !$holds {
            return Err($crate::conformance::failure::Stop::Failed(format!($($sentence)+)));
        }
    };
}

/// Ends the case with a sentence, the found and the wanted value, unless both are equal.
macro_rules! ensure_eq {
    ($found:expr, $wanted:expr, $($sentence:tt)+) => {
        match (&$found, &$wanted) {
            (found, wanted) => if *found != *wanted {
                return Err($crate::conformance::failure::Stop::Failed(format!(
                    "{}: found {found:?}, should be {wanted:?}", format_args!($($sentence)+)
                )));
            },
        }
    };
}

pub(crate) use {ensure, ensure_eq};
