//! esrs with its `PgStore`. `AggregateManager::handle_command` would call `persist` with the state
//! that `load` read. Here the client keeps the state, which numbers the events itself.

use esrs::{
    Aggregate, AggregateState,
    store::{
        EventStore,
        postgres::{PgStore, PgStoreBuilder, UuidFormat},
    },
};
use uuid::Uuid;

use crate::{
    load::stream_name,
    postgres::framework::{Event, Framework, MoneyDeposited, pool, single},
};

pub(crate) struct Esrs {
    store: PgStore<Account>,
}

pub(crate) struct Account;

impl Aggregate for Account {
    const NAME: &'static str = "account";
    type State = ();
    type Command = ();
    type Event = MoneyDeposited;
    type Error = std::fmt::Error;

    fn handle_command((): &(), (): ()) -> Result<Vec<MoneyDeposited>, Self::Error> {
        Ok(Vec::new())
    }

    fn apply_event((): (), _: MoneyDeposited) {}
}

impl Framework for Esrs {
    type Stream = AggregateState<()>;

    async fn prepare(url: &str) {
        let made = PgStoreBuilder::<Account>::new(single(url).await).try_build().await;
        made.expect("its migrations run");
    }

    async fn open(url: &str) -> Self {
        let store = PgStoreBuilder::<Account>::new(pool(url).await)
            .without_running_migrations()
            // Neighbours in the index of ids: faster than the default, random ones.
            .with_event_id_format(UuidFormat::V7);
        Self { store: store.try_build().await.expect("its tables are there") }
    }

    fn stream(&self, stream: usize) -> Self::Stream {
        AggregateState::with_id(Uuid::new_v5(&Uuid::NAMESPACE_OID, stream_name(stream).as_bytes()))
    }

    async fn append(&self, stream: &mut Self::Stream, event: Event) {
        let event = MoneyDeposited { note: event.text };
        self.store.persist(stream, vec![event]).await.expect("an append");
    }
}
