//! The file of a build: named after it, made with it, removed with it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use factum_consumer::{ConsumerName, TargetError};
use rusqlite::{Connection, TransactionBehavior};

use super::{SqliteSynchronous, fault, file};

use crate::sql::CLEARED;

/// True if the file contains the progress of another build.
const IS_FOREIGN: &str = "SELECT count(*) > 0 FROM factum_consumer
    WHERE consumer <> ?1 AND substr(consumer, 1, length(?1) + 1) <> ?1 || '#'";
/// True if a file without the tables of progress contains other tables.
const HAS_TABLES: &str = "SELECT count(*) > 0 FROM sqlite_schema";
const IS_CLOSED: &str =
    "SELECT count(*) > 0 FROM factum_consumer WHERE consumer = ?1 AND fence < 0";
/// Closes all rows in the file, those of partitions too. No process can have this fence, because a
/// build's name is never used again.
const CLOSE: &str = "UPDATE factum_consumer SET fence = -1, progress = NULL, mark = NULL";
const CLOSE_BUILD: &str = "INSERT INTO factum_consumer (consumer, fence) VALUES (?1, -1)
    ON CONFLICT DO NOTHING";

/// The SQLite file of one build, and whether its target has opened it.
#[derive(Debug, Clone)]
pub(crate) struct BuildFile {
    /// The name of the build: the name of its consumers without the partition.
    build: ConsumerName,
    /// True once the target has opened the file. If the file is missing after that, the build was
    /// cleared.
    is_made: Arc<AtomicBool>,
}

impl BuildFile {
    pub(crate) fn new(consumer: &ConsumerName) -> Self {
        Self { build: consumer.whole(), is_made: Arc::default() }
    }

    pub(crate) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.db", self.build))
    }

    /// Checks that a consumer is of this build: a target does not know the files of other builds.
    pub(crate) fn check(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        if consumer.whole() == self.build {
            return Ok(());
        }
        let build = &self.build;
        Err(fault::refused(&format!(
            "the target is of another build: build={build} consumer={consumer}"
        )))
    }

    /// Prepares to open the file, which makes it the first time. A missing file is not made again.
    pub(crate) fn prepare(&self, path: &Path) -> Result<(), TargetError> {
        if self.is_made.load(Ordering::SeqCst) && !path.exists() {
            return Err(self.cleared_error());
        }
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(unavailable)
    }

    /// Checks that the file is this build's, before anything is written to it.
    pub(crate) fn enter(&self, connection: &Connection) -> Result<(), TargetError> {
        if !self.has_begun(connection)? {
            return Ok(());
        }
        let is_closed = connection.query_row(IS_CLOSED, [self.build.as_str()], |row| row.get(0));
        match is_closed.map_err(fault::before_commit)? {
            true => Err(self.cleared_error()),
            false => Ok(()),
        }
    }

    /// Notes that the file was opened.
    pub(crate) fn mark_made(&self) {
        self.is_made.store(true, Ordering::SeqCst);
    }

    /// Closes the build permanently, and then removes its file. A reader with an open connection
    /// can still read, on systems that remove open files; other systems remove the file after it is
    /// closed.
    pub(crate) fn remove(&self, path: &Path, how: SqliteSynchronous) -> Result<(), TargetError> {
        if path.exists() {
            self.close(path, how)?;
        }
        // The main file goes first: without its write-ahead log, an older state of it would be
        // left.
        for ending in ["", "-wal", "-shm"] {
            let mut path = path.as_os_str().to_owned();
            path.push(ending);
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(unavailable(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Closes the build, so that a process that still works on it can store nothing: in a removed
    /// file it would continue forever.
    fn close(&self, path: &Path, how: SqliteSynchronous) -> Result<(), TargetError> {
        let mut connection = file::open_writer(path, how, false)?;
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let tx = tx.map_err(fault::before_commit)?;
        // Perhaps no process has ever written to it.
        if !self.has_begun(&tx)? {
            return Ok(());
        }
        tx.execute(CLOSE_BUILD, [self.build.as_str()]).map_err(fault::before_commit)?;
        tx.execute(CLOSE, []).map_err(fault::before_commit)?;
        tx.commit().map_err(fault::at_commit)
    }

    /// Returns true if the file contains tables of this build.
    fn has_begun(&self, connection: &Connection) -> Result<bool, TargetError> {
        let has_begun = file::are_tables_there(connection).map_err(fault::before_commit)?;
        let answer = |row: &rusqlite::Row<'_>| row.get(0);
        let is_foreign = match has_begun {
            true => connection.query_row(IS_FOREIGN, [self.build.as_str()], answer),
            false => connection.query_row(HAS_TABLES, [], answer),
        };
        match is_foreign.map_err(fault::before_commit)? {
            true => Err(self.foreign_error()),
            false => Ok(has_begun),
        }
    }

    fn foreign_error(&self) -> TargetError {
        let build = &self.build;
        fault::refused(&format!(
            "a file with the build's name exists already and is not its own, move it \
             away: build={build}"
        ))
    }

    fn cleared_error(&self) -> TargetError {
        fault::refused(&format!("{CLEARED}: build={}", self.build))
    }
}

fn unavailable(error: io::Error) -> TargetError {
    TargetError::Unavailable(Arc::new(error))
}
