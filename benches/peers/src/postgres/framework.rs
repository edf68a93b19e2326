//! The frameworks, and the calls that each must support.

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

/// The number of connections in each process's pool, for all that use a pool. The drivers' and the
/// frameworks' own default is 10, which is slower.
pub(crate) const POOL_CONNECTIONS: u32 = 32;
/// A pool serves in the order of arrival; with more clients than connections some wait.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(60);

/// A framework with a database of its own. Every call is durable when it returns.
pub(crate) trait Framework: Sized + Send + Sync + 'static {
    /// The caller's knowledge of a stream between two appends: its id, and usually its version.
    type Stream: Send + 'static;

    /// Makes its tables in an empty database.
    fn prepare(url: &str) -> impl Future<Output = ()> + Send;

    /// Opens it in a database with its tables.
    fn open(url: &str) -> impl Future<Output = Self> + Send;

    /// A stream without events.
    fn stream(&self, stream: usize) -> Self::Stream;

    /// Appends one event to a stream, if it is as this caller last left it.
    fn append(&self, stream: &mut Self::Stream, event: Event) -> impl Future<Output = ()> + Send;

    /// The number of groups formed so far, if it forms groups.
    fn groups(&self) -> usize {
        0
    }
}

/// The event, as a client holds it.
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

/// The event for frameworks that serialize types.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MoneyDeposited {
    note: String,
}

/// A pool of sqlx with all its connections made. It doesn't ping a connection before each use, as
/// it would by default: that would cost every append another round trip.
pub(crate) async fn pool(url: &str) -> PgPool {
    let options = PgPoolOptions::new()
        .max_connections(POOL_CONNECTIONS)
        .min_connections(POOL_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false);
    options.connect(url).await.expect("the server takes connections")
}

/// One connection is enough to make tables.
async fn single(url: &str) -> PgPool {
    let options = PgPoolOptions::new().max_connections(1);
    options.connect(url).await.expect("the server takes a connection")
}
