//! Whether the error of a handler tells of an outage: then it is no event's fault.

use std::{error::Error, iter::successors};

use factum_kernel::ErrorKind;

/// Whether something that the handler needs was away, by what stands in the error's sources. A
/// transparent error hides what it wraps, so this looks at what such an error leaves in the chain.
pub(crate) fn is_outage(error: &(dyn Error + 'static)) -> bool {
    ErrorKind::of(error).is_some_and(ErrorKind::is_outage)
        || successors(Some(error), |error| (**error).source()).any(is_of_database)
}

fn is_of_database(link: &(dyn Error + 'static)) -> bool {
    #[cfg(feature = "postgres")]
    if crate::target::is_postgres_outage(link) {
        return true;
    }
    #[cfg(feature = "sqlite")]
    if crate::target::is_sqlite_outage(link) {
        return true;
    }
    let _ = link;
    false
}
