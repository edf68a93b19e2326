//! The suite that every store passes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use factum_kernel::{Clock, Monotonic, Timestamp};
use factum_sqlite::{Access, SqliteOptions, SqliteStore};
use factum_testing::conformance::{OpenError, Setup, Stores, Subject};
use tempfile::TempDir;

/// The folder of one case.
struct SqliteSubject {
    folder: Arc<TempDir>,
}

impl SqliteSubject {
    fn new() -> Self {
        Self { folder: Arc::new(tempfile::tempdir().unwrap()) }
    }

    fn options(&self, setup: &Setup) -> SqliteOptions {
        let clock = ClockWithFolder { clock: setup.clock.clone(), _folder: self.folder.clone() };
        let path = self.folder.path().join("events.db");
        let mut options = SqliteOptions::new(path).with_clock(Arc::new(clock));
        options.commit_delay = setup.commit_delay.clone();
        options
    }
}

#[async_trait]
impl Subject for SqliteSubject {
    async fn open(&self, setup: &Setup) -> Result<Stores, OpenError> {
        Ok(Stores::both(Arc::new(SqliteStore::open(self.options(setup)).await?)))
    }

    async fn open_to_read(&self, setup: &Setup) -> Result<Option<Stores>, OpenError> {
        let options = self.options(setup).with_access(Access::ReadOnly);
        Ok(Some(Stores::both(Arc::new(SqliteStore::open(options).await?))))
    }
}

/// Keeps the folder as long as the store, because some cases drop the subject first.
#[derive(Debug)]
struct ClockWithFolder {
    clock: Arc<dyn Clock>,
    _folder: Arc<TempDir>,
}

#[async_trait]
impl Clock for ClockWithFolder {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn monotonic(&self) -> Monotonic {
        self.clock.monotonic()
    }

    async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }
}

factum_testing::conformance!(suite: SqliteSubject::new());
