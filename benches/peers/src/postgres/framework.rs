//! The frameworks, and what each must be able to do.

pub(crate) mod cqrs_es;
pub(crate) mod disintegrate;
pub(crate) mod esrs;
pub(crate) mod eventcore;
pub(crate) mod evento;
pub(crate) mod factum;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgPool, PgPoolOptions};
use uuid::Uuid;

use crate::load::Record;

/// How many connections each process's pool has, for everybody who takes a pool. The drivers'
/// and the frameworks' own default is 10, which is slower.
pub(crate) const POOL_CONNECTIONS: u32 = 32;
/// A pool serves who comes first; with more clients than connections some wait.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(60);

/// A framework with a database of its own. Every call is durable when it returns.
pub(crate) trait Framework: Sized + Send + Sync + 'static {
    /// What its caller keeps of a stream between two appends: its id, and mostly its version.
    type Stream: Send + 'static;

    /// Makes its tables in an empty database.
    fn prepare(url: &str) -> impl Future<Output = ()> + Send;

    /// Opens it where its tables are.
    fn open(url: &str) -> impl Future<Output = Self> + Send;

    /// A stream that nobody has written to.
    fn stream(&self, stream: usize) -> Self::Stream;

    /// Appends one event to a stream, if it is as this caller last left it.
    fn append(&self, stream: &mut Self::Stream, event: Event) -> impl Future<Output = ()> + Send;

    /// How many groups it has formed so far, if it forms groups.
    fn groups(&self) -> usize {
        0
    }
}

/// The event, as a client has it in hand.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: Uuid,
    /// Letters, one byte each also in the JSON that most frameworks make of it.
    pub(crate) text: String,
}

impl From<Record> for Event {
    fn from(record: Record) -> Self {
        let letter = |byte: &u8| char::from(b'a' + byte % 16);
        Self { id: record.id, text: record.payload.iter().map(letter).collect() }
    }
}

/// The event, as frameworks that serialize types get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MoneyDeposited {
    note: String,
}

/// A pool of sqlx's with all its connections made. It doesn't ping a connection before each use,
/// as it would by default: that would cost every append a round trip more.
pub(crate) async fn pool(url: &str) -> PgPool {
    let options = PgPoolOptions::new()
        .max_connections(POOL_CONNECTIONS)
        .min_connections(POOL_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false);
    options.connect(url).await.expect("the server takes connections")
}

/// A connection is enough to make tables with.
async fn single(url: &str) -> PgPool {
    let options = PgPoolOptions::new().max_connections(1);
    options.connect(url).await.expect("the server takes a connection")
}
