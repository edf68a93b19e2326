//! The connections for reading: a bounded number, each page in one snapshot.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use factum_backend::blocking;
use factum_kernel::StoreError;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::{error::Result, file, place::Place, sql};

/// The connections for reading. They are opened on demand and kept while the store is open.
#[derive(Debug, Clone)]
pub(crate) struct Readers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    place: Place,
    busy_timeout: Duration,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    readers_max: u32,
}

impl Readers {
    pub(crate) fn new(place: Place, busy_timeout: Duration, readers_max: usize) -> Self {
        // More would only wait for each other in SQLite; the bound also keeps the number a u32.
        let readers_max = readers_max.clamp(1, 1_024);
        Self(Arc::new(Inner {
            place,
            busy_timeout,
            idle: Mutex::new(Vec::new()),
            permits: Arc::new(Semaphore::new(readers_max)),
            readers_max: u32::try_from(readers_max).expect("clamped"),
        }))
    }

    /// Reads in one snapshot, on a thread that may block.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, StoreError> {
        let permit = Arc::clone(&self.0.permits).acquire_owned().await;
        let permit = permit.map_err(|_| StoreError::closed())?;
        let inner = Arc::clone(&self.0);
        let done = blocking(move || {
            let done = inner.read(work);
            // Held until the connection is returned, so that closing waits for it.
            drop(permit);
            done
        });
        done.await?
    }

    /// Waits for the running reads, refuses further ones, and closes the connections.
    pub(crate) async fn close(&self) {
        // A second caller finds the semaphore closed.
        if let Ok(all) = self.0.permits.acquire_many(self.0.readers_max).await {
            self.0.permits.close();
            drop(all);
        }
        self.0.idle().clear();
    }
}

impl Inner {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T>,
    ) -> std::result::Result<T, StoreError> {
        self.place.check()?;
        let path = self.place.path();
        let idle = self.idle().pop();
        let file::Reader { connection, is_immutable } = match idle {
            Some(connection) => file::Reader { connection, is_immutable: false },
            None => file::open_reader(path, self.busy_timeout)?,
        };
        let done = in_snapshot(&connection, work).map_err(|fault| fault.in_file(&connection))?;
        // A process that may write to the folder has written: what was read is no snapshot.
        if is_immutable && file::has_wal(path) {
            let path = path.display();
            let message = format!("another process writes to the database, try again: path={path}");
            return Err(StoreError::unavailable(message));
        }
        // After an error the connection is dropped, and the next read opens a new one.
        if !is_immutable {
            self.idle().push(connection);
        }
        Ok(done)
    }
}

/// Does work in which every statement sees the same state of the database.
pub(crate) fn in_snapshot<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T>,
) -> Result<T> {
    connection.prepare_cached(sql::BEGIN_READ)?.execute([])?;
    let done = work(connection);
    connection.prepare_cached(sql::COMMIT)?.execute([])?;
    done
}
