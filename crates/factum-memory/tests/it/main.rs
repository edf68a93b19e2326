//! The reference store passes the suite.

use std::sync::Arc;

use async_trait::async_trait;
use factum_memory::{MemoryOptions, MemoryStore};
use factum_testing::conformance::{OpenError, Setup, Stores, Subject};

struct Memory;

#[async_trait]
impl Subject for Memory {
    async fn open(&self, setup: &Setup) -> Result<Stores, OpenError> {
        let mut options = MemoryOptions::new().with_clock(setup.clock.clone());
        options.commit_delay = setup.commit_delay.clone();
        let store = Arc::new(MemoryStore::with_options(options));
        Ok(Stores { events: store.clone(), documents: store })
    }
}

factum_testing::conformance!(Memory);
