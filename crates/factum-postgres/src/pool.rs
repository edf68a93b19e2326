//! The connections of readers, and of writers of documents.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use factum_backend::CommitError;
use factum_kernel::StoreError;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_postgres::Row;

use crate::{
    error,
    link::{CANCEL_TIMEOUT, CLOSE_MAX, Dialer, Link, Parameter, Running, check_runtime},
    options::CONNECTIONS_MAX,
};

/// Connections that are made on demand, and kept for a while. Clones share them.
///
/// There are never more than the maximum. A connection in use holds a permit, and so does a closing
/// one until it is closed. An idle one holds none: a caller with a permit takes an idle one first.
#[derive(Debug, Clone)]
pub(crate) struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dialer: Dialer,
    room: Arc<Semaphore>,
    connections_max: u32,
    /// The idle connections; the one that was used last is the last.
    idle: Mutex<Vec<Idle>>,
    is_closed: AtomicBool,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    /// The number of looks since it became idle.
    looks: u32,
}

impl Pool {
    pub(crate) fn new(dialer: Dialer, connections_max: usize) -> Self {
        let connections_max = connections_max.clamp(1, CONNECTIONS_MAX);
        Self(Arc::new(Shared {
            dialer,
            room: Arc::new(Semaphore::new(connections_max)),
            connections_max: u32::try_from(connections_max).expect("it is clamped"),
            idle: Mutex::default(),
            is_closed: AtomicBool::default(),
        }))
    }

    /// Runs a statement as a transaction of its own. It goes on if the caller stops waiting.
    pub(crate) async fn ask(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, CommitError> {
        let lent = self.lend(Running::GoesOn).await?;
        lent.link().ask(statement, parameters).await
    }

    /// Runs a statement that stores nothing, and repeats it once if an idle connection had been
    /// cut. If the caller stops waiting, the server is asked to cancel it.
    pub(crate) async fn read(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let lent = self.lend(Running::IsCancelled).await?;
        match lent.link().ask(statement, parameters).await {
            Err(CommitError::Unknown(_)) if lent.was_used => {
                drop(lent);
                // Where one was cut, others probably were too.
                self.leave_idle(|_| true);
                let lent = self.lend(Running::IsCancelled).await?;
                lent.link().ask(statement, parameters).await.map_err(error::of_read)
            }
            answer => answer.map_err(error::of_read),
        }
    }

    async fn lend(&self, running: Running) -> Result<Lent, StoreError> {
        check_runtime()?;
        let room = Arc::clone(&self.0.room).acquire_owned().await;
        let room = room.map_err(|_| StoreError::closed())?;
        while let Some(Idle { link, .. }) = self.idle().pop() {
            if !link.is_closed() {
                let pool = self.clone();
                return Ok(Lent { pool, link: Some((link, room)), was_used: true, running });
            }
        }
        // In a task of its own: if the caller stops waiting, another one gets the connection.
        let pool = self.clone();
        let made = tokio::spawn(async move {
            let link = pool.0.dialer.connect(None).await?;
            Ok(Lent { pool, link: Some((link, room)), was_used: false, running })
        });
        made.await.map_err(|e| StoreError::internal("no connection was made").with_source(e))?
    }

    /// Counts a look for each idle connection, and closes those that were idle for more than the
    /// most.
    pub(crate) fn rest(&self, looks_max: u32) {
        self.leave_idle(|idle| {
            idle.looks += 1;
            idle.looks > looks_max
        });
    }

    /// Closes those idle connections for which `is_meant` holds.
    fn leave_idle(&self, mut is_meant: impl FnMut(&mut Idle) -> bool) {
        let gone: Vec<Idle> = self.idle().extract_if(.., |idle| is_meant(idle)).collect();
        for Idle { link, .. } in gone {
            // A permit is free, except while another caller takes it for a new connection.
            match Arc::clone(&self.0.room).try_acquire_owned() {
                Ok(room) => self.leave(link, room, Running::GoesOn),
                Err(_) if self.is_closed() => {
                    link.runtime().clone().spawn(link.end(Running::GoesOn, CLOSE_MAX));
                }
                Err(_) => self.idle().insert(0, Idle { link, looks: 0 }),
            }
        }
    }

    /// Closes a connection. It counts until it is closed.
    fn leave(&self, link: Link, room: OwnedSemaphorePermit, running: Running) {
        // By then the server ends its statement, even if it can't be told to.
        let limit = self.0.dialer.statement_timeout().saturating_add(CANCEL_TIMEOUT);
        link.runtime().clone().spawn(async move {
            link.end(running, limit).await;
            drop(room);
        });
    }

    /// Waits for the running statements, closes all connections, and refuses further calls.
    pub(crate) async fn close(&self) {
        self.0.is_closed.store(true, Ordering::Release);
        // A connection whose runtime has stopped never returns its permit. An error means that the
        // pool was closed before.
        let limit = self.0.dialer.statement_timeout().saturating_add(CANCEL_TIMEOUT * 2);
        let all = timeout(limit, self.0.room.acquire_many(self.0.connections_max)).await;
        self.0.room.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle());
        for Idle { link, .. } in idle {
            link.end(Running::GoesOn, CLOSE_MAX).await;
        }
    }

    /// The place, for error messages.
    pub(crate) fn place(&self) -> &str {
        self.0.dialer.place()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed.load(Ordering::Acquire)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use; its drop returns it.
struct Lent {
    pool: Pool,
    link: Option<(Link, OwnedSemaphorePermit)>,
    /// True if it was idle before, and may have been cut.
    was_used: bool,
    /// The fate of its statement if the caller stops waiting for the answer.
    running: Running,
}

impl Lent {
    fn link(&self) -> &Link {
        &self.link.as_ref().expect("it is taken out when this is dropped").0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some((link, room)) = self.link.take() else { return };
        if link.is_closed() {
            self.pool.leave(link, room, self.running);
        } else {
            self.pool.idle().push(Idle { link, looks: 0 });
            drop(room);
        }
    }
}
