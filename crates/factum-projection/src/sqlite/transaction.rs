//! The transaction of one batch on a connection.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_consumer::{Fence, Save, TargetError};
use rusqlite::Connection;

use super::fault;

const SAVE: &str = "UPDATE factum_consumer
    SET fence = fence + 1, progress = ?3, mark = coalesce(?4, mark)
    WHERE consumer = ?1 AND fence = ?2";
const PUT_LETTER: &str = "INSERT INTO factum_dead_letter (consumer, stream, letter)
    VALUES (?1, ?2, ?3) ON CONFLICT (consumer, stream) DO UPDATE SET letter = excluded.letter";
const REMOVE_LETTER: &str = "DELETE FROM factum_dead_letter WHERE consumer = ?1 AND stream = ?2";
/// Resets the rows, those of partitions too. They stay, because a fence that is used again would
/// let a late writer through.
const FORGET: &str = "UPDATE factum_consumer SET fence = fence + 1, progress = NULL, mark = NULL
    WHERE consumer = ?1 OR substr(consumer, 1, length(?1) + 1) = ?1 || '#'";
const FORGET_LETTERS: &str = "DELETE FROM factum_dead_letter
    WHERE consumer = ?1 OR substr(consumer, 1, length(?1) + 1) = ?1 || '#'";

pub(crate) const ENDED: &str = "the transaction has ended before its batch, by a handler or after \
                                an error that it did not pass on";

/// The batch that a projection into a SQLite file writes to: a connection in a transaction. Only
/// the projection ends the transaction. A handler's `COMMIT` rolls back and makes the handler fail,
/// and so does each statement after that or after a `ROLLBACK`. Handlers may use savepoints.
///
/// # Panics
/// Dereferencing panics after the transaction has ended: a later write would be stored permanently,
/// without the checkpoint. The panic counts as the handler's failure.
pub struct SqliteTx {
    /// The connection; `None` after the end.
    connection: Option<Connection>,
    /// True after a rollback. If a transaction is open then, it is another one.
    is_rolled_back: Arc<AtomicBool>,
    idle: Arc<Mutex<Option<Connection>>>,
}

impl SqliteTx {
    /// Begins, and waits at most `wait` for other transactions to end.
    pub(crate) fn begin(
        connection: Connection,
        idle: &Arc<Mutex<Option<Connection>>>,
        wait: Duration,
    ) -> Result<Self, rusqlite::Error> {
        connection.busy_timeout(wait)?;
        // Until the batch's own commit, every commit rolls back instead.
        connection.commit_hook(Some(|| true))?;
        let is_rolled_back = Arc::new(AtomicBool::new(false));
        let rolled_back = is_rolled_back.clone();
        connection.rollback_hook(Some(move || rolled_back.store(true, Ordering::Relaxed)))?;
        match connection.execute_batch("BEGIN IMMEDIATE") {
            Ok(()) => Ok(Self { connection: Some(connection), is_rolled_back, idle: idle.clone() }),
            Err(error) => {
                give(idle, connection);
                Err(error)
            }
        }
    }

    pub(crate) fn commit(mut self, consumer: &str, save: &Save) -> Result<Fence, TargetError> {
        if self.has_ended() {
            return Err(fault::refused(ENDED));
        }
        if !self.write(consumer, save).map_err(fault::before_commit)? {
            return Err(TargetError::Fenced);
        }
        self.end()?;
        Ok(Fence(save.expected.0 + 1))
    }

    fn inner(&self) -> &Connection {
        self.connection.as_ref().expect("it is not over")
    }

    /// Writes the progress and dead letters. Returns false if the fence is another.
    fn write(&self, consumer: &str, save: &Save) -> Result<bool, rusqlite::Error> {
        let fence = save.expected.0.cast_signed();
        let progress = &save.progress[..];
        let mark = save.mark.as_deref();
        let moved = self.prepare_cached(SAVE)?.execute((consumer, fence, progress, mark))?;
        for (stream, letter) in save.letters.iter().filter(|_| moved > 0) {
            let stream = stream.to_string();
            match letter {
                Some(letter) => {
                    let put = (consumer, stream, &letter[..]);
                    self.prepare_cached(PUT_LETTER)?.execute(put)?
                }
                None => self.prepare_cached(REMOVE_LETTER)?.execute((consumer, stream))?,
            };
        }
        Ok(moved > 0)
    }

    pub(crate) fn clear(mut self, consumer: &str, statements: &str) -> Result<(), TargetError> {
        let clear = || {
            self.execute_batch(statements)?;
            self.execute(FORGET, [consumer])?;
            self.execute(FORGET_LETTERS, [consumer])
        };
        clear().map_err(fault::before_commit)?;
        self.end()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.is_rolled_back.load(Ordering::Relaxed) || self.inner().is_autocommit()
    }

    /// Commits. The connection is used again only after success.
    fn end(&mut self) -> Result<(), TargetError> {
        let connection = self.connection.take().expect("it is not over");
        connection.commit_hook(None::<fn() -> bool>).map_err(fault::before_commit)?;
        connection.execute_batch("COMMIT").map_err(fault::at_commit)?;
        give(&self.idle, connection);
        Ok(())
    }
}

impl Deref for SqliteTx {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        assert!(!self.has_ended(), "{ENDED}");
        self.inner()
    }
}

impl Drop for SqliteTx {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok() {
            give(&self.idle, connection);
        }
    }
}

impl fmt::Debug for SqliteTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteTx").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// Takes the idle connection that is kept between batches.
pub(crate) fn take(idle: &Mutex<Option<Connection>>) -> Option<Connection> {
    idle.lock().unwrap_or_else(PoisonError::into_inner).take()
}

pub(crate) fn give(idle: &Mutex<Option<Connection>>, connection: Connection) {
    *idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
}
