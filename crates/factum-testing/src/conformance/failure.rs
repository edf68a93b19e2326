//! How a case ends early, and the checks that end it.

use std::fmt;

use factum_kernel::{AppendError, StoreError, WriteError};

/// Why a case ended before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The store does not claim what the case tests.
    Skipped(&'static str),
    /// The store broke a law.
    Failed(String),
}

/// How a case ends.
pub(crate) type CaseResult<T = ()> = Result<T, Stop>;

impl Stop {
    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        Self::Failed(reason.into())
    }

    /// Adds where it happened.
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

/// Adds to a failure where it happened.
pub(crate) trait Within<T> {
    fn within(self, place: impl FnOnce() -> String) -> CaseResult<T>;
}

impl<T, E: Into<Stop>> Within<T> for Result<T, E> {
    fn within(self, place: impl FnOnce() -> String) -> CaseResult<T> {
        self.map_err(|e| e.into().within(place()))
    }
}

/// Ends the case with a sentence unless something holds.
macro_rules! ensure {
    ($holds:expr, $($sentence:tt)+) => {
        if !$holds {
            return Err($crate::conformance::failure::Stop::Failed(format!($($sentence)+)));
        }
    };
}

/// Ends the case with a sentence, what was found and what should be, unless both are equal.
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
