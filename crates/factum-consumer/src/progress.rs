//! The stored progress of a consumer: its checkpoint, and the mark that it is at work.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use factum_kernel::{
    Cbor, Checkpoint, Codec, CodecError, Kernel, Position, ReadFrom, ReadQuery, StoreError,
    Timestamp,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{lag::Wanted, lease::host, option::StartFrom};

/// The progress of a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The last event that the consumer has handled, skipped or parked.
    pub checkpoint: Option<Checkpoint>,
    /// The position after which the consumer began.
    pub began_after: Option<Position>,
    /// The id of the start that stored this; each start of a consumer has its own.
    #[serde(default)]
    pub by: u64,
    /// The attempt of another build to take this consumer's place. The consumer handles no further
    /// event meanwhile. Each attempt has a number; 0 if none is under way.
    #[serde(default)]
    pub frozen_by: u64,
}

impl Progress {
    /// The progress of a consumer at its first start.
    pub async fn beginning(kernel: &Kernel, from: StartFrom) -> Result<Self, StoreError> {
        let events = kernel.events();
        let after = match from {
            StartFrom::Start => Position::ZERO,
            StartFrom::After(position) => position,
            StartFrom::Now => events.read(ReadQuery::log().with_events_max(1)).await?.head,
            StartFrom::Time(time) => before(kernel, time).await?,
        };
        // With this event as the checkpoint, another log is noticed from the first start on.
        let query = ReadQuery::log().from(ReadFrom::Position(after)).with_events_max(1);
        let page = events.read(query).await?;
        let there = page.events.first().filter(|event| event.position() == after);
        let checkpoint = there.map(|event| Checkpoint::of(page.lineage, event));
        Ok(Self { checkpoint, began_after: Some(after), by: 0, frozen_by: 0 })
    }

    /// The position after which the consumer continues.
    pub fn position(&self) -> Position {
        let began_after = self.began_after.unwrap_or(Position::ZERO);
        self.checkpoint.map_or(began_after, |checkpoint| checkpoint.position)
    }
}

/// The position before the first event recorded at `time` or later.
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

/// The mark of a consumer at work. It stays if the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mark {
    /// Set while the consumer runs: the most events of its batches. If it is still set at a start,
    /// the last stop was not clean.
    pub at_work: Option<usize>,
    /// The events that the consumer was about to handle in cautious mode.
    pub attempt: Option<Attempt>,
}

/// The mark as it is stored: with the process that has made it, and with the events that the
/// consumer wants, for other processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredMark<'a> {
    /// The two fields of a [`Mark`].
    pub(crate) at_work: Option<usize>,
    pub(crate) attempt: Option<Attempt>,
    /// 0 in marks of an earlier version.
    #[serde(default)]
    pub(crate) process: u32,
    /// The id of the process's host, if it is known.
    #[serde(default)]
    pub(crate) machine: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(crate) wanted: Option<Cow<'a, Wanted>>,
}

impl<'a> StoredMark<'a> {
    /// The mark of this process.
    fn here(mark: Mark, wanted: &'a Wanted) -> Self {
        Self {
            at_work: mark.at_work,
            attempt: mark.attempt,
            process: std::process::id(),
            machine: host::here().map(Cow::Borrowed),
            wanted: Some(Cow::Borrowed(wanted)),
        }
    }

    /// True if the process that has made the mark has ended for certain.
    pub(crate) fn has_died(&self) -> bool {
        self.at_work.is_some() && host::has_exited(self.machine.as_deref(), self.process)
    }
}

/// Encodes the mark of a consumer in this process, which wants these events.
pub fn encode_mark(mark: Mark, wanted: &Wanted) -> Bytes {
    encode(&StoredMark::here(mark, wanted))
}

/// Noted events, and the number of times that they were about to be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub first: Position,
    pub last: Position,
    pub count: u32,
}

/// Encodes a value for the store.
pub fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut out = BytesMut::new();
    Cbor::encode(value, &mut out).expect("a stored value encodes as CBOR");
    out.freeze()
}

/// Decodes a stored value.
///
/// # Errors
/// [`CodecError`] for bytes that don't encode such a value.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    Cbor::decode(bytes)
}
