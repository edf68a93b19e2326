//! News of what the writer's process appends: a thread that looks now and then.

use std::{sync::mpsc, thread, time::Duration};

use factum_kernel::StoreError;

/// How long a reader that waits for the head may miss an append of the writer's process. A look
/// reads 16 bytes while there is no news.
const EVERY: Duration = Duration::from_millis(100);

/// The thread that keeps the head up to date. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Nothing is ever sent; its end is the sign to stop.
    _stop: mpsc::Sender<()>,
}

impl Watch {
    /// Looks until there is nothing to look at any more.
    pub(crate) fn start(
        look: impl Fn() -> Option<()> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (stop, stopped) = mpsc::channel();
        let watch = move || {
            while stopped.recv_timeout(EVERY) == Err(mpsc::RecvTimeoutError::Timeout)
                && look().is_some()
            {}
        };
        let thread = thread::Builder::new().name("factum-journal-head".into()).spawn(watch);
        thread.map_err(|e| {
            StoreError::unavailable("no thread to watch the head, try again").with_source(e)
        })?;
        Ok(Self { _stop: stop })
    }
}
