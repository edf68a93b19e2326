//! eventcore with eventcore-postgres. A command would read its streams and then make the call made
//! here: `append_events`, with the version that it expects of each.

use eventcore_postgres::PostgresEventStore;
use eventcore_types::{EventStore, StreamId, StreamVersion, StreamWrites};
use serde::{Deserialize, Serialize};

use crate::{
    load::{EVENT_NAME, stream_name},
    postgres::framework::{Event, Framework, pool, single},
};

#[derive(Debug)]
pub(crate) struct Eventcore {
    store: PostgresEventStore,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct MoneyDeposited {
    account: StreamId,
    note: String,
}

impl eventcore_types::Event for MoneyDeposited {
    fn stream_id(&self) -> &StreamId {
        &self.account
    }

    fn event_type_name() -> &'static str {
        EVENT_NAME
    }
}

impl Framework for Eventcore {
    type Stream = (StreamId, usize);

    async fn prepare(url: &str) {
        PostgresEventStore::from_pool(single(url).await).migrate().await;
    }

    async fn open(url: &str) -> Self {
        Self { store: PostgresEventStore::from_pool(pool(url).await) }
    }

    fn stream(&self, stream: usize) -> Self::Stream {
        (StreamId::try_new(stream_name(stream)).expect("a valid id"), 0)
    }

    async fn append(&self, (stream, version): &mut Self::Stream, event: Event) {
        let event = MoneyDeposited { account: stream.clone(), note: event.text };
        let writes = StreamWrites::new()
            .register_stream(stream.clone(), StreamVersion::new(*version))
            .and_then(|writes| writes.append(event))
            .expect("one event of a stream that is registered");
        self.store.append_events(writes).await.expect("an append");
        *version += 1;
    }
}
