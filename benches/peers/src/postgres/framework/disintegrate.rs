//! disintegrate with disintegrate-postgres. A decision would query the events of the account and
//! then call `append` with that query and the last event's id, which the client has from its last
//! append. Its transactions are SERIALIZABLE, and many fail without a conflict. Like
//! `DecisionMaker`'s callers, the client then tries again; the wait counts.
//!
//! Its tables need PostgreSQL 16, which its documentation does not mention.
//!
//! `disintegrate-unchecked` appends without any check, for applications that need none.

use disintegrate::{EventStore, query, serde::json::Json};
use disintegrate_postgres::{Error, PgEventId, PgEventStore};
use serde::{Deserialize, Serialize};
use sqlx::error::DatabaseError;

use crate::{
    load::stream_name,
    postgres::framework::{Event, Framework, pool, single},
};

#[derive(Debug, Clone, disintegrate::Event, Serialize, Deserialize)]
pub(crate) enum AccountEvent {
    MoneyDeposited {
        #[id]
        account_id: String,
        note: String,
    },
}

pub(crate) struct Disintegrate<const CHECKED: bool> {
    store: PgEventStore<AccountEvent, Json<AccountEvent>>,
}

impl<const CHECKED: bool> Framework for Disintegrate<CHECKED> {
    type Stream = (String, PgEventId);

    async fn prepare(url: &str) {
        let serde = Json::<AccountEvent>::default();
        PgEventStore::try_new(single(url).await, serde).await.expect("its tables");
    }

    async fn open(url: &str) -> Self {
        Self { store: PgEventStore::new_uninitialized(pool(url).await, Json::default()) }
    }

    fn stream(&self, stream: usize) -> Self::Stream {
        (stream_name(stream), 0)
    }

    async fn append(&self, (account_id, last): &mut Self::Stream, event: Event) {
        let account_id = account_id.clone();
        let event =
            AccountEvent::MoneyDeposited { account_id: account_id.clone(), note: event.text };
        if !CHECKED {
            self.store.append_without_validation(vec![event]).await.expect("an append");
            return;
        }
        let account = query!(AccountEvent; account_id == account_id);
        loop {
            match self.store.append(vec![event.clone()], account.clone(), *last).await {
                Ok(appended) => break *last = appended[0].id(),
                Err(Error::Concurrency) => {}
                Err(Error::Database(error)) if is_serialization_failure(&error) => {}
                Err(error) => panic!("an append: {error}"),
            }
        }
    }
}

/// The error of a statement; `Error::Concurrency` is only made of a commit's error.
fn is_serialization_failure(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).as_deref() == Some("40001")
}
