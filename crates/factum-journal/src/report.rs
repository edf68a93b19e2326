//! Reports of background work that fails. No caller waits for this work: its error would be lost.

use std::sync::{Mutex, PoisonError};

use factum_kernel::{StoreError, sentence};

/// The failures of one kind of work, each logged once: the work is tried again and again, and on a
/// full disk fails in the same way each time.
#[derive(Debug)]
pub(crate) struct Report {
    work: &'static str,
    /// The text of the last failure, until the work succeeds.
    last: Mutex<Option<String>>,
}

impl Report {
    pub(crate) const fn new(work: &'static str) -> Self {
        Self { work, last: Mutex::new(None) }
    }

    /// Logs an error that is new, and a success after an error. Returns the result of the work.
    pub(crate) fn note<T>(&self, done: Result<T, StoreError>) -> Option<T> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let work = self.work;
        match done {
            Ok(result) => {
                if last.take().is_some() {
                    tracing::info!(work, "the journal's background work succeeds again");
                }
                Some(result)
            }
            Err(error) => {
                let error = sentence(&error);
                if last.as_ref() != Some(&error) {
                    let told = "the journal's background work failed, it is tried again";
                    tracing::warn!(work, %error, "{told}");
                }
                *last = Some(error);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fmt::Write, sync::Arc};

    use tracing::{Event, Level, Subscriber, field};
    use tracing_subscriber::{Layer, Registry, layer::Context, prelude::*};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut line = event.metadata().level().to_string();
            event.record(&mut |field: &field::Field, value: &dyn std::fmt::Debug| {
                write!(line, " {field}={value:?}").unwrap();
            });
            self.0.lock().unwrap().push(line);
        }
    }

    #[test]
    fn a_failure_is_logged_when_it_begins_changes_and_ends() {
        let lines = Lines::default();
        let _guard = tracing::subscriber::set_default(Registry::default().with(lines.clone()));
        let report = Report::new("reclaiming erased space");
        let fail = |text: &str| report.note::<()>(Err(StoreError::unavailable(text.to_owned())));
        assert_eq!(report.note(Ok(1)), Some(1));
        assert_eq!([fail("full"), fail("full"), fail("denied")], [None, None, None]);
        assert_eq!([report.note(Ok(2)), report.note(Ok(3))], [Some(2), Some(3)]);
        let lines = lines.0.lock().unwrap();
        let levels: Vec<_> = lines.iter().map(|it| it.split(' ').next().unwrap()).collect();
        assert_eq!(levels, [Level::WARN, Level::WARN, Level::INFO].map(|it| it.to_string()));
        assert!(lines.iter().all(|it| it.contains("reclaiming erased space")), "{lines:?}");
        assert!(lines[0].contains("full") && lines[1].contains("denied"), "{lines:?}");
    }
}
