//! What a consumer keeps: its checkpoint, and the mark that it is at work.

use bytes::{Bytes, BytesMut};
use factum_kernel::{
    Cbor, Checkpoint, Codec, CodecError, Kernel, Position, ReadFrom, ReadQuery, StoreError,
    Timestamp,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::option::StartFrom;

/// How far a consumer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The last event that it handled or passed.
    pub checkpoint: Option<Checkpoint>,
    /// Where it began.
    pub began_after: Option<Position>,
    /// Who stored it: each start of a consumer has a number of its own.
    #[serde(default)]
    pub by: u64,
    /// Another build is about to take its place: it comes no further for a while. Each try has a
    /// number; 0: none is under way.
    #[serde(default)]
    pub frozen_by: u64,
}

impl Progress {
    /// That of one that begins.
    pub async fn beginning(kernel: &Kernel, from: StartFrom) -> Result<Self, StoreError> {
        let events = kernel.events();
        let after = match from {
            StartFrom::Start => Position::ZERO,
            StartFrom::After(position) => position,
            StartFrom::Now => events.read(ReadQuery::log().with_events_max(1)).await?.head,
            StartFrom::Time(time) => before(kernel, time).await?,
        };
        // With the event that is there another log is noticed from the first start on.
        let query = ReadQuery::log().from(ReadFrom::Position(after)).with_events_max(1);
        let page = events.read(query).await?;
        let there = page.events.first().filter(|event| event.position() == after);
        let checkpoint = there.map(|event| Checkpoint::of(page.lineage, event));
        Ok(Self { checkpoint, began_after: Some(after), by: 0, frozen_by: 0 })
    }

    /// Where it is: behind this position it goes on.
    pub fn position(&self) -> Position {
        let began_after = self.began_after.unwrap_or(Position::ZERO);
        self.checkpoint.map_or(began_after, |checkpoint| checkpoint.position)
    }
}

/// The position before the first event that was recorded then or later.
async fn before(kernel: &Kernel, time: Timestamp) -> Result<Position, StoreError> {
    let mut query = ReadQuery::log().from(ReadFrom::Time(time)).with_events_max(1);
    loop {
        let page = kernel.events().read(query.clone()).await?;
        if let Some(event) = page.events.first() {
            return Ok(event.position().previous());
        }
        match query.next(&page) {
            Some(next) => query = next,
            None => return Ok(page.head),
        }
    }
}

/// What is left behind when a process dies while its consumer is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mark {
    /// It has not stopped cleanly; it handled at most so many events in one go.
    pub at_work: Option<usize>,
    /// What it was about to handle in cautious mode.
    pub attempt: Option<Attempt>,
}

/// Events that were about to be handled, and how often they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub first: Position,
    pub last: Position,
    pub count: u32,
}

/// The stored form of a value.
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut out = BytesMut::new();
    Cbor::encode(value, &mut out).expect("what is kept has a form in CBOR");
    out.freeze()
}

/// The value of a stored form.
///
/// # Errors
/// Bytes that are no such value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    Cbor::decode(bytes)
}
