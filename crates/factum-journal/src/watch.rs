//! News of the writing process's appends: a thread that looks at intervals.

use std::{sync::mpsc, thread, time::Duration};

use factum_kernel::StoreError;

/// The longest time that a reader that waits for the head may miss an append of the writing
/// process. A look without news reads 16 bytes.
const EVERY: Duration = Duration::from_millis(100);

/// The thread that keeps the head up to date. Its drop ends the thread.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Never carries a message; its drop is the sign to stop.
    _stop: mpsc::Sender<()>,
}

impl Watch {
    /// Calls `look` at intervals until it returns `None`.
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
