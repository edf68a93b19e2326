//! The bound on the size of the write-ahead log.
//!
//! SQLite copies the log into the database and restarts it when it holds [`CHECKPOINT_PAGES`], but
//! only while no reader is active. If reads overlap without end there is no such moment, and the
//! file grows. Beyond a size, this module waits for the readers and makes one.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::Connection;

use crate::{place::wal_of, sql};

/// The number of pages in the log after which SQLite copies them into the database: 32 MiB.
pub(crate) const CHECKPOINT_PAGES: u32 = 8_192;
/// The size in bytes beyond which this module waits for the readers.
const WAL_BYTES_MAX: u64 = 256 << 20;
/// The longest wait for readers. A page takes milliseconds to read, so a longer read is another
/// program's.
const WAIT: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Wal {
    path: PathBuf,
    busy_timeout: Duration,
    /// The size in bytes from which the next attempt is worth the wait.
    bytes_max: u64,
}

impl Wal {
    /// The log of this database.
    pub(crate) fn new(database: &Path, busy_timeout: Duration) -> Self {
        Self { path: wal_of(database), busy_timeout, bytes_max: WAL_BYTES_MAX }
    }

    /// Restarts the log if it has grown too long. The next commit reports an error, because nothing
    /// depends on this attempt.
    pub(crate) fn keep_short(&mut self, connection: &Connection) {
        let length = || fs::metadata(&self.path).map_or(0, |file| file.len());
        if length() <= self.bytes_max {
            return;
        }
        let _ = connection.busy_timeout(WAIT);
        let _ = connection.query_row(sql::TRUNCATE_WAL, [], |_| Ok(()));
        let _ = connection.busy_timeout(self.busy_timeout);
        // A reader holds an old snapshot: try again when the file has grown by the same size again,
        // not at every commit.
        self.bytes_max = length() + WAL_BYTES_MAX;
    }
}
