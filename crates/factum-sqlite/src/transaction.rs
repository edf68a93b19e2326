//! The writer's connection, and the only way to write through it.

use factum_backend::CommitError;
use rusqlite::Connection;

use crate::{
    cache::Cache,
    error::{Fault, Result, stored_nothing},
    place::Place,
    sql,
    wal::Wal,
};

/// The end of a transaction whose work is done.
#[derive(Debug)]
pub(crate) enum End<T> {
    /// Keep what was written.
    Commit(T),
    /// Nothing was written.
    Rollback(T),
}

/// The writer's connection with its cache, owned by the writer's thread.
#[derive(Debug)]
pub(crate) struct Session {
    connection: Connection,
    cache: Cache,
    place: Place,
    wal: Wal,
    /// SQLite's counter of the commits of other connections.
    data_version: Option<i64>,
}

impl Session {
    pub(crate) fn new(connection: Connection, place: Place, wal: Wal) -> Self {
        Self { connection, cache: Cache::new(), place, wal, data_version: None }
    }

    /// Does work in one transaction that excludes all other writers. The error tells truthfully how
    /// it ended: `NotStored` or `Unknown`.
    pub(crate) fn transact<T>(
        &mut self,
        work: impl FnOnce(&Connection, &mut Cache) -> Result<End<T>>,
    ) -> std::result::Result<T, CommitError> {
        let done = self.begin().and_then(|()| work(&self.connection, &mut self.cache));
        match done {
            Ok(End::Commit(done)) => {
                self.commit()?;
                self.wal.keep_short(&self.connection);
                Ok(done)
            }
            Ok(End::Rollback(done)) => {
                self.roll_back();
                Ok(done)
            }
            Err(fault) => {
                self.forget();
                Err(CommitError::NotStored(fault.in_file(&self.connection)))
            }
        }
    }

    fn begin(&mut self) -> Result<()> {
        self.connection.prepare_cached(sql::BEGIN_WRITE)?.execute([])?;
        self.place.check_for_writing()?;
        self.cache.begin();
        let mut ask = self.connection.prepare_cached(sql::DATA_VERSION)?;
        let now = Some(ask.query_row([], |row| row.get(0))?);
        // Read under the lock: no other connection can commit between this and the plan.
        if self.data_version != now {
            self.cache.clear();
            self.data_version = now;
        }
        Ok(())
    }

    fn commit(&mut self) -> std::result::Result<(), CommitError> {
        let done = self.connection.prepare_cached(sql::COMMIT).and_then(|mut it| it.execute([]));
        let Err(error) = done else { return Ok(()) };
        // SQLite itself rolls back after most errors, but only this flag tells.
        let is_open = !self.connection.is_autocommit();
        self.forget();
        let is_certain = is_open || stored_nothing(&error);
        let error = Fault::from(error).in_file(&self.connection);
        Err(if is_certain { CommitError::NotStored(error) } else { CommitError::Unknown(error) })
    }

    /// Rolls a failed transaction back, and clears the cache of what it may have added.
    fn forget(&mut self) {
        self.roll_back();
        self.cache.clear();
    }

    fn roll_back(&mut self) {
        if !self.connection.is_autocommit() {
            let statement = self.connection.prepare_cached(sql::ROLLBACK);
            // If the rollback fails, the transaction stays open, and the next BEGIN reports it.
            let _ = statement.and_then(|mut it| it.execute([]));
        }
    }
}
