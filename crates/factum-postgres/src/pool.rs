//! The connections of readers, and of writers of documents.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use factum_backend::CommitError;
use factum_core::StoreError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::Row;

use crate::{
    error,
    link::{Dialer, Link, Parameter},
};

/// Connections that are made when they are needed, and kept. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    dialer: Dialer,
    room: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Link>>>,
    is_closed: Arc<AtomicBool>,
}

impl Pool {
    pub(crate) fn new(dialer: Dialer, connections_max: usize) -> Self {
        Self {
            dialer,
            room: Arc::new(Semaphore::new(connections_max.max(1))),
            idle: Arc::default(),
            is_closed: Arc::default(),
        }
    }

    /// Runs a statement as a transaction of its own.
    pub(crate) async fn ask(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, CommitError> {
        let lent = self.lend().await?;
        lent.link().ask(statement, parameters).await
    }

    /// Runs a statement that stores nothing; once more if its connection had been cut meanwhile.
    pub(crate) async fn read(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let lent = self.lend().await?;
        match lent.link().ask(statement, parameters).await {
            Err(CommitError::Unknown(_)) if lent.was_used => {
                drop(lent);
                self.forget();
                self.ask(statement, parameters).await.map_err(error::of_read)
            }
            answer => answer.map_err(error::of_read),
        }
    }

    async fn lend(&self) -> Result<Lent<'_>, StoreError> {
        let room = Arc::clone(&self.room).acquire_owned().await;
        let room = room.map_err(|_| StoreError::closed())?;
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(link) if link.is_closed() => {}
                Some(link) => {
                    return Ok(Lent { pool: self, link: Some(link), was_used: true, _room: room });
                }
                None => {
                    let link = Some(self.dialer.connect(None).await?);
                    return Ok(Lent { pool: self, link, was_used: false, _room: room });
                }
            }
        }
    }

    /// Lets the connections go that nobody uses: where one was cut, others were as well.
    fn forget(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Lets what runs finish, and refuses from now on.
    pub(crate) async fn close(&self, connections_max: usize) {
        self.is_closed.store(true, Ordering::Release);
        let count = u32::try_from(connections_max.max(1)).unwrap_or(u32::MAX);
        // An error says that somebody has closed it before.
        if let Ok(all) = self.room.acquire_many(count).await {
            self.room.close();
            drop(all);
        }
        self.forget();
    }

    /// The place that errors name.
    pub(crate) fn place(&self) -> &str {
        &self.dialer.place
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}

/// A connection in use; dropping it gives it back.
struct Lent<'p> {
    pool: &'p Pool,
    link: Option<Link>,
    /// It lay idle before, and may have been cut there.
    was_used: bool,
    _room: OwnedSemaphorePermit,
}

impl Lent<'_> {
    fn link(&self) -> &Link {
        self.link.as_ref().expect("it is taken out when this is dropped")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.link.take().filter(|link| !link.is_closed()) {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(link);
        }
    }
}
