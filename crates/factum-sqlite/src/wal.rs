//! Keeping the write-ahead log short.
//!
//! SQLite copies the log into the database and begins it anew whenever it holds
//! [`CHECKPOINT_PAGES`], but only at a moment when nobody reads. Under reads that overlap without
//! end there is no such moment, and the file grows; then one is made by waiting for the readers.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::Connection;

use crate::{place::wal_of, sql};

/// After how many pages in the log SQLite copies them into the database: 32 MiB.
pub(crate) const CHECKPOINT_PAGES: u32 = 8_192;
/// Beyond this size readers are waited for.
const WAL_BYTES_MAX: u64 = 256 << 20;
/// How long they are waited for. A read takes milliseconds; what is longer is no page of ours.
const WAIT: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Wal {
    path: PathBuf,
    busy_timeout: Duration,
    /// The size from which on the next attempt is worth the wait.
    bytes_max: u64,
}

impl Wal {
    /// The log beside this database.
    pub(crate) fn new(database: &Path, busy_timeout: Duration) -> Self {
        Self { path: wal_of(database), busy_timeout, bytes_max: WAL_BYTES_MAX }
    }

    /// Begins the log anew if it has grown too long. An error is the next commit's to report:
    /// nothing depends on this one.
    pub(crate) fn keep_short(&mut self, connection: &Connection) {
        let length = || fs::metadata(&self.path).map_or(0, |file| file.len());
        if length() <= self.bytes_max {
            return;
        }
        let _ = connection.busy_timeout(WAIT);
        let _ = connection.query_row(sql::TRUNCATE_WAL, [], |_| Ok(()));
        let _ = connection.busy_timeout(self.busy_timeout);
        // Somebody holds an old snapshot: try again when the file has grown by as much again,
        // not at every commit.
        self.bytes_max = length() + WAL_BYTES_MAX;
    }
}
