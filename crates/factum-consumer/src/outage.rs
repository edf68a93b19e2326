//! Outages in the errors of handlers. An event is not at fault for an outage.

use std::{error::Error, iter::successors};

use factum_kernel::ErrorKind;

/// A function that returns true if one error in a chain of sources shows an outage. It does not see
/// an error inside a transparent error, only what that error leaves in the chain.
pub type TellsOutage = fn(&(dyn Error + 'static)) -> bool;

/// The rules that recognise an outage: Factum's own errors, and the program's functions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outages(Vec<TellsOutage>);

impl Outages {
    pub(crate) fn with(mut self, tells: TellsOutage) -> Self {
        self.0.push(tells);
        self
    }

    /// True if the error or one of its sources shows that something the handler needs was
    /// unavailable.
    pub(crate) fn caused(&self, error: &(dyn Error + 'static)) -> bool {
        let is_known = |link| self.0.iter().any(|tells| tells(link));
        ErrorKind::of(error).is_some_and(ErrorKind::is_outage)
            || successors(Some(error), |error| (**error).source()).any(is_known)
    }
}
