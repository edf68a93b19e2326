//! Factum on PostgreSQL with its defaults, by the trait that applications use. Each append expects
//! the version of its stream, like those of the frameworks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use factum_kernel::{
    AppendBatch, Content, EventId, EventName, EventStore, NewEvent, StreamId, StreamVersion,
};
use factum_postgres::{PostgresOptions, PostgresStore};

use crate::{
    load::{EVENT_NAME, stream_name},
    postgres::framework::{Event, Framework},
};

#[derive(Debug)]
pub(crate) struct Factum {
    store: PostgresStore,
    groups: Arc<AtomicUsize>,
}

/// Makes the tables of a log, also for the bare inserts.
pub(crate) async fn prepare(url: &str) {
    let store = PostgresStore::open(options(url)).await.expect("a fresh log");
    store.close().await.expect("it closes");
}

fn options(url: &str) -> PostgresOptions {
    PostgresOptions::parse(url).expect("a good URL")
}

impl Framework for Factum {
    type Stream = (StreamId, StreamVersion);

    async fn prepare(url: &str) {
        prepare(url).await;
    }

    async fn open(url: &str) -> Self {
        let groups = Arc::new(AtomicUsize::new(0));
        let count = groups.clone();
        // Called once per group; it does not wait.
        let delay = Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Duration::ZERO
        });
        let options = options(url).with_commit_delay(delay);
        Self { store: PostgresStore::open(options).await.expect("the log is there"), groups }
    }

    fn stream(&self, stream: usize) -> Self::Stream {
        (stream_name(stream).parse().expect("a valid id"), StreamVersion::ZERO)
    }

    async fn append(&self, (stream, version): &mut Self::Stream, event: Event) {
        let name = EventName::from_static(EVENT_NAME);
        let event = NewEvent::new(EventId::new(event.id), name, Content::Cbor, event.text);
        let batch = AppendBatch::new().write(stream.clone(), *version, [event]);
        let appended = self.store.append(batch).await.expect("an append");
        *version = appended.versions[0];
    }

    fn groups(&self) -> usize {
        self.groups.load(Ordering::Relaxed)
    }
}
