//! News of other processes' appends: a thread that looks at intervals.

use std::{path::Path, sync::mpsc, thread, time::Duration};

use factum_backend::Head;
use factum_kernel::StoreError;
use rusqlite::Connection;

use crate::{cache::Snapshot, error::Result, file, pool, sql};

/// The longest time that a caller that waits for the head may miss another process's append. A look
/// without news costs microseconds.
const EVERY: Duration = Duration::from_millis(100);

/// The thread that keeps the head up to date. Its drop ends the thread and waits for its end.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Never carries a message; its drop is the sign to stop.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watch {
    pub(crate) fn start(
        path: &Path,
        busy_timeout: Duration,
        head: Head,
    ) -> std::result::Result<Self, StoreError> {
        let connection = file::open_reader(path, busy_timeout)?.connection;
        let (stop, stopped) = mpsc::channel();
        let watch = move || {
            let mut seen = None;
            while stopped.recv_timeout(EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                // Reads meet the same error, and report it.
                let _ = look(&connection, &mut seen, &head);
            }
        };
        let thread = thread::Builder::new().name("factum-sqlite-head".into()).spawn(watch);
        let thread = thread.map_err(|e| {
            StoreError::unavailable("no thread to watch the head, try again").with_source(e)
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed, and the head is only a hint.
            let _ = thread.join();
        }
    }
}

fn look(connection: &Connection, seen: &mut Option<i64>, head: &Head) -> Result<()> {
    let mut ask = connection.prepare_cached(sql::DATA_VERSION)?;
    let now = Some(ask.query_row([], |row| row.get(0))?);
    if *seen != now {
        head.advance(pool::in_snapshot(connection, Snapshot::read)?.head);
        *seen = now;
    }
    Ok(())
}
