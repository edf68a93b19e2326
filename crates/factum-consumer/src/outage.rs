//! Whether the error of a handler tells of an outage: then it is no event's fault.

use std::{error::Error, iter::successors};

use factum_kernel::ErrorKind;

/// Says of one link in an error's chain of sources whether it tells of an outage. A transparent
/// error hides what it wraps, so the function sees what such an error leaves in the chain.
pub type TellsOutage = fn(&(dyn Error + 'static)) -> bool;

/// What tells of an outage: Factum's own errors, and those that functions of the program know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outages(Vec<TellsOutage>);

impl Outages {
    pub(crate) fn with(mut self, tells: TellsOutage) -> Self {
        self.0.push(tells);
        self
    }

    /// Whether something that the handler needs was away, by what stands in the error's sources.
    pub(crate) fn caused(&self, error: &(dyn Error + 'static)) -> bool {
        let is_taught = |link| self.0.iter().any(|tells| tells(link));
        ErrorKind::of(error).is_some_and(ErrorKind::is_outage)
            || successors(Some(error), |error| (**error).source()).any(is_taught)
    }
}
