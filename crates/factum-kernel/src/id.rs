//! Ids of events, and `IdSource`, the only source of randomness.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::time::Timestamp;

/// The identity of an event. The writer chooses it before the append.
///
/// A repeated batch carries the same ids, and by them the store recognises it for
/// [`RETRY_WINDOW`](crate::RETRY_WINDOW). After that time an id is not unique: no store checks
/// whether another event has the id of a new one. An [`IdSource`] makes UUIDv7 (RFC 9562), so each
/// id contains the time of the first attempt.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct EventId(Uuid);

impl EventId {
    /// The id with these bits.
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// An id that is a function of `time` and `source`: the same input gives the same id.
    ///
    /// The id has the layout of a UUIDv7, with `time` as its time and the hash of `source` as its
    /// random bits. A batch whose first event has such an id is appended once, however often its
    /// cause is seen, if each attempt is marked [`repeated`](crate::AppendBatch::repeated), writes
    /// the same streams, and comes within [`RETRY_WINDOW`](crate::RETRY_WINDOW) of `time`. Without
    /// the mark the store appends it another time. After the window a marked batch is `Invalid`,
    /// even if it was never stored. For causes that may be older or seen later, send a command with
    /// an id: the repetition is recognised as long as the command's events are kept.
    ///
    /// ```
    /// use factum_kernel::{AppendBatch, Content, EventId, EventName, EventStore, ExpectedVersion};
    /// use factum_kernel::{Clock, NewEvent, StreamId, SystemClock};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = factum_memory::MemoryStore::new();
    /// let id = EventId::derived(SystemClock.now(), b"payment-17");
    /// let name = EventName::from_static("account.deposited");
    /// let event = NewEvent::new(id, name, Content::Json, r#"{"cents":500}"#);
    /// let stream = StreamId::new("account", "ada")?;
    /// let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [event]).repeated();
    /// let first = store.append(batch.clone()).await?;
    /// let again = store.append(batch.clone()).await?;
    /// assert!(!first.replayed && again.replayed && again.first == first.first);
    /// # Ok(()) }
    /// ```
    pub fn derived(time: Timestamp, source: &[u8]) -> Self {
        let digest = Sha256::digest(source);
        let random: [u8; 10] = digest[..10].try_into().expect("SHA-256 has 32 bytes");
        Self(uuid::Builder::from_unix_timestamp_millis(time.as_millis(), &random).into_uuid())
    }

    /// The id as a UUID.
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }

    /// The time inside a UUIDv7, to the millisecond; `None` for another version of UUID.
    pub fn time(&self) -> Option<Timestamp> {
        if self.0.get_version_num() != 7 {
            return None;
        }
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        Some(Timestamp::EPOCH.saturating_add(Duration::new(seconds, nanos)))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl AsRef<[u8]> for EventId {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The only source of randomness. Tests replace it with a seeded one.
pub trait IdSource: fmt::Debug + Send + Sync + 'static {
    /// Returns a new UUIDv7 with this time. No id is returned twice.
    fn uuid(&self, now: Timestamp) -> Uuid;

    /// Returns a random duration between zero and `up_to`, to spread retries.
    fn jitter(&self, up_to: Duration) -> Duration;
}

/// Ids from the operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdSource for SystemIds {
    fn uuid(&self, now: Timestamp) -> Uuid {
        let random: [u8; 10] = random_bytes()[..10].try_into().expect("a UUID has 16 bytes");
        uuid::Builder::from_unix_timestamp_millis(now.as_millis(), &random).into_uuid()
    }

    fn jitter(&self, up_to: Duration) -> Duration {
        let bytes = random_bytes();
        let sample = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        up_to.mul_f64(f64::from(sample) / f64::from(u32::MAX))
    }
}

#[expect(clippy::disallowed_methods, reason = "the only place that reads randomness")]
fn random_bytes() -> [u8; 16] {
    Uuid::new_v4().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_carries_its_time() {
        let now: Timestamp = "2026-03-01T12:00:00.123Z".parse().unwrap();
        assert_eq!(EventId::new(SystemIds.uuid(now)).time(), Some(now));
        assert_eq!(EventId::derived(now, b"consumer/7").time(), Some(now));
        assert_eq!(EventId::new(Uuid::nil()).time(), None);
    }

    #[test]
    fn a_derived_id_is_a_function_of_its_source() {
        let now = Timestamp::from_micros(1_000_000);
        assert_eq!(EventId::derived(now, b"a"), EventId::derived(now, b"a"));
        assert_ne!(EventId::derived(now, b"a"), EventId::derived(now, b"b"));
    }

    #[test]
    fn jitter_stays_within_its_bound() {
        let most = Duration::from_millis(10);
        assert!((0..1_000).all(|_| SystemIds.jitter(most) <= most));
    }
}
