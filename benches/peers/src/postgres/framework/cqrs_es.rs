//! cqrs-es with postgres-es. `CqrsFramework::execute` would read the stream and then make the call
//! made here: to the repository, with the sequence number for the event.

use cqrs_es::{
    Aggregate, DomainEvent,
    event_sink::EventSink,
    persist::{PersistedEventRepository, SerializedEvent},
};
use postgres_es::PostgresEventRepository;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    load::{EVENT_NAME, stream_name},
    postgres::framework::{Event, Framework, MoneyDeposited, pool, single},
};

/// `db/init.sql` of postgres-es.
const TABLE: &str = "CREATE TABLE events (
    aggregate_type text NOT NULL,
    aggregate_id text NOT NULL,
    sequence bigint CHECK (sequence >= 0) NOT NULL,
    event_type text NOT NULL,
    event_version text NOT NULL,
    payload json NOT NULL,
    metadata json NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id, sequence)
)";

pub(crate) struct CqrsEs {
    repository: PostgresEventRepository,
}

/// The aggregate of the streams; the repository uses only its name.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Account;

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = ();
    type Event = MoneyDeposited;
    type Error = std::fmt::Error;
    type Services = ();

    async fn handle(&mut self, (): (), (): &(), _: &EventSink<Self>) -> Result<(), Self::Error> {
        Ok(())
    }

    fn apply(&mut self, _: MoneyDeposited) {}
}

impl DomainEvent for MoneyDeposited {
    fn event_type(&self) -> String {
        EVENT_NAME.into()
    }

    fn event_version(&self) -> String {
        "1.0".into()
    }
}

impl Framework for CqrsEs {
    type Stream = (String, usize);

    async fn prepare(url: &str) {
        sqlx::query(TABLE).execute(&single(url).await).await.expect("a table");
    }

    async fn open(url: &str) -> Self {
        Self { repository: PostgresEventRepository::new(pool(url).await) }
    }

    fn stream(&self, stream: usize) -> Self::Stream {
        (stream_name(stream), 0)
    }

    async fn append(&self, (stream, sequence): &mut Self::Stream, event: Event) {
        *sequence += 1;
        let event = MoneyDeposited { note: event.text };
        let payload = serde_json::to_value(&event).expect("it has a form in JSON");
        let event = SerializedEvent::new(
            stream.clone(),
            *sequence,
            Account::TYPE.into(),
            event.event_type(),
            event.event_version(),
            payload,
            json!({}),
        );
        self.repository.persist::<Account>(&[event], None).await.expect("an append");
    }
}
