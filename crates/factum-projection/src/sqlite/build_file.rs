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

/// Whether the progress in it is another build's.
const IS_STRANGE: &str = "SELECT count(*) > 0 FROM factum_consumer
    WHERE consumer <> ?1 AND substr(consumer, 1, length(?1) + 1) <> ?1 || '#'";
/// Whether there are tables in a file without any progress.
const IS_FULL: &str = "SELECT count(*) > 0 FROM sqlite_schema";
const IS_CLOSED: &str =
    "SELECT count(*) > 0 FROM factum_consumer WHERE consumer = ?1 AND fence < 0";
/// A build's name never comes again, so nobody's fence is this one. Its partitions go with it.
const CLOSE: &str = "UPDATE factum_consumer SET fence = -1, progress = NULL, mark = NULL";
const CLOSE_BUILD: &str = "INSERT INTO factum_consumer (consumer, fence) VALUES (?1, -1)
    ON CONFLICT DO NOTHING";

/// Which build's a file is.
#[derive(Debug, Clone)]
pub(crate) struct BuildFile {
    /// The build's name: that of its consumers, but for the partition.
    build: ConsumerName,
    /// Its target has opened it. When it is gone then, the build was cleared.
    is_made: Arc<AtomicBool>,
}

impl BuildFile {
    pub(crate) fn new(consumer: &ConsumerName) -> Self {
        Self { build: consumer.whole(), is_made: Arc::default() }
    }

    pub(crate) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.db", self.build))
    }

    /// A target is of one build; it knows nothing of another's file.
    pub(crate) fn check(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        if consumer.whole() == self.build {
            return Ok(());
        }
        let build = &self.build;
        Err(fault::refused(&format!("the target is another build's: build={build} of={consumer}")))
    }

    /// Before the file is opened, which makes it, but once.
    pub(crate) fn prepare(&self, path: &Path) -> Result<(), TargetError> {
        if self.is_made.load(Ordering::SeqCst) && !path.exists() {
            return Err(self.is_cleared());
        }
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(unavailable)
    }

    /// Looks whose the file is, before anything is made in it.
    pub(crate) fn enter(&self, connection: &Connection) -> Result<(), TargetError> {
        if !self.has_begun(connection)? {
            return Ok(());
        }
        let is_closed = connection.query_row(IS_CLOSED, [self.build.as_str()], |row| row.get(0));
        match is_closed.map_err(fault::before_commit)? {
            true => Err(self.is_cleared()),
            false => Ok(()),
        }
    }

    /// The file was opened.
    pub(crate) fn was_made(&self) {
        self.is_made.store(true, Ordering::SeqCst);
    }

    /// Closes the build for good, and removes its file then. A reader that has it open reads on,
    /// where the system removes open files; elsewhere it is removed when they have closed it.
    pub(crate) fn remove(&self, path: &Path, how: SqliteSynchronous) -> Result<(), TargetError> {
        if path.exists() {
            self.close(path, how)?;
        }
        // The file first: without the others it would be an older one.
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

    /// Whoever is at work on it stores nothing any more: in a file that is gone they would go on
    /// for ever.
    fn close(&self, path: &Path, how: SqliteSynchronous) -> Result<(), TargetError> {
        let mut connection = file::open_writer(path, how, false)?;
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let tx = tx.map_err(fault::before_commit)?;
        // Nobody may have come so far as to write to it.
        if !self.has_begun(&tx)? {
            return Ok(());
        }
        tx.execute(CLOSE_BUILD, [self.build.as_str()]).map_err(fault::before_commit)?;
        tx.execute(CLOSE, []).map_err(fault::before_commit)?;
        tx.commit().map_err(fault::at_commit)
    }

    /// Whether there is anything of the build's in the file.
    fn has_begun(&self, connection: &Connection) -> Result<bool, TargetError> {
        let has_begun = file::are_tables_there(connection).map_err(fault::before_commit)?;
        let told = |row: &rusqlite::Row<'_>| row.get(0);
        let is_strange = match has_begun {
            true => connection.query_row(IS_STRANGE, [self.build.as_str()], told),
            false => connection.query_row(IS_FULL, [], told),
        };
        match is_strange.map_err(fault::before_commit)? {
            true => Err(self.is_strange()),
            false => Ok(has_begun),
        }
    }

    fn is_strange(&self) -> TargetError {
        let build = &self.build;
        fault::refused(&format!(
            "there is a file already that has the build's name and is not its own, move it \
             away: build={build}"
        ))
    }

    fn is_cleared(&self) -> TargetError {
        fault::refused(&format!("{CLEARED}: build={}", self.build))
    }
}

fn unavailable(error: io::Error) -> TargetError {
    TargetError::Unavailable(Arc::new(error))
}
