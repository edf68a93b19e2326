//! Partitions: shares of a consumer's events that are worked on in parallel.

use std::{fmt, sync::Arc};

use factum_kernel::{Event, RecordedEvent};

use crate::work::decode;

/// The most partitions of a consumer.
pub const PARTITIONS_MAX: usize = 64;

type KeyOf = dyn Fn(&RecordedEvent) -> Key + Send + Sync;

/// The key of an event.
enum Key {
    Named(String),
    /// The event has no key of its own.
    Stream,
    /// This program can't read the event, so the event may belong to any partition.
    Unread,
}

impl From<Option<String>> for Key {
    fn from(key: Option<String>) -> Self {
        key.map_or(Self::Stream, Self::Named)
    }
}

/// The partitions of a consumer. Events with the same key are in the same partition, and are
/// handled in order. Partitions are worked on in parallel, in one process or, if several processes
/// may write the store, in all processes that run the consumer.
///
/// Choose more partitions than you need now: a consumer keeps the number and the key with which it
/// was first started. The next build of a projection may have another number; for another key,
/// raise the projection's version.
///
/// Events are parked by stream. If the key is not the stream, later events of the key in *other*
/// streams continue.
///
/// ```
/// use factum_consumer::{ConsumerOptions, Partitions};
///
/// // The events of a stream one after another, eight streams at a time.
/// let options = ConsumerOptions::new().with_partitions(Partitions::by_stream(8));
/// // Everything about a customer one after another, whatever stream it is in.
/// let options = ConsumerOptions::new().with_partitions(Partitions::by_tag(8, "customer"));
/// # let _ = options;
/// ```
#[derive(Clone)]
#[must_use]
pub struct Partitions {
    count: usize,
    /// `None`: by stream.
    key: Option<Arc<KeyOf>>,
}

impl Partitions {
    /// One partition: all events one after another.
    pub fn one() -> Self {
        Self { count: 1, key: None }
    }

    /// 1 to [`PARTITIONS_MAX`] partitions by the events' streams.
    pub fn by_stream(count: usize) -> Self {
        Self { count: count.clamp(1, PARTITIONS_MAX), key: None }
    }

    /// 1 to [`PARTITIONS_MAX`] partitions by a key. The key of an event must never change. An event
    /// without a key goes by its stream.
    ///
    /// A deletion has no key, and the partitions that had the events of its stream are at different
    /// positions. So projections and handlers of [`OrDeleted`](factum_kernel::OrDeleted) have
    /// partitions by stream.
    pub fn by(
        count: usize,
        key: impl Fn(&RecordedEvent) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self::keyed(count, move |event| key(event).into())
    }

    /// Like [`by`](Self::by), with the first tag of this name as the key, as it is stored: hashed
    /// or not.
    pub fn by_tag(count: usize, name: &str) -> Self {
        let begins = format!("{name}:");
        Self::by(count, move |event| {
            event.tags().find(|tag| tag.starts_with(&begins)).map(Into::into)
        })
    }

    /// Like [`by`](Self::by), with a key from the decoded event. Each partition decodes each event
    /// once more for that; a tag costs less. An event that the program can't read waits in all
    /// partitions, because it may belong to any of them.
    pub fn by_event<E: Event>(
        count: usize,
        key: impl Fn(&E) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self::keyed(count, move |event| match decode::<E>(event) {
            Ok((first, _)) => first.and_then(|event| key(&event)).into(),
            Err(_) => Key::Unread,
        })
    }

    fn keyed(count: usize, key: impl Fn(&RecordedEvent) -> Key + Send + Sync + 'static) -> Self {
        Self { key: Some(Arc::new(key)), ..Self::by_stream(count) }
    }

    /// The number of partitions.
    pub fn count(&self) -> usize {
        self.count
    }

    /// True if each event's partition is known from its stream alone.
    pub(crate) fn is_by_stream(&self) -> bool {
        self.count == 1 || self.key.is_none()
    }

    /// The same key with another number of partitions.
    #[doc(hidden)]
    pub fn of(&self, count: usize) -> Self {
        Self { count, ..self.clone() }
    }

    /// True if a partition, counted from 0, has the event. If one program can't read the event,
    /// all partitions have it: otherwise the one to which it belongs would have passed it when
    /// another program reads it.
    pub(crate) fn has(&self, partition: usize, event: &RecordedEvent) -> bool {
        if self.count == 1 {
            return partition == 0;
        }
        let hash = match self.key.as_ref().map_or(Key::Stream, |key| key(event)) {
            Key::Named(key) => hash(key.bytes()),
            Key::Stream => hash(event.stream().as_str().bytes()),
            Key::Unread => return true,
        };
        hash % self.count as u64 == partition as u64
    }
}

/// FNV-1a with 64 bits, then mixed. Stored progress depends on it, so it must never change.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, step);
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

impl Default for Partitions {
    fn default() -> Self {
        Self::one()
    }
}

impl fmt::Debug for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key.is_some() { "a key" } else { "stream" };
        f.debug_struct("Partitions").field("count", &self.count).field("by", &key).finish()
    }
}

/// Equal values put each event in the same partition. Two closures are equal only if they are the
/// same one.
impl PartialEq for Partitions {
    fn eq(&self, other: &Self) -> bool {
        let is_key_same = match (&self.key, &other.key) {
            (None, None) => true,
            (Some(left), Some(right)) => Arc::ptr_eq(left, right),
            _ => false,
        };
        self.count == other.count && is_key_same
    }
}

impl Eq for Partitions {}

#[cfg(test)]
mod tests {
    use factum_kernel::{
        Content, EventHeader, EventId, EventName, NewEvent, Position, StreamId, StreamVersion, Tag,
        Timestamp,
    };
    use factum_testing::bank::AccountEvent;

    use super::*;

    /// Stored progress depends on these numbers.
    #[test]
    fn the_partition_of_a_key_never_changes() {
        let hashes = ["", "account-ada", "customer:7"].map(|key| hash(key.bytes()) % 64);
        assert_eq!(hashes, [11, 5, 9]);
    }

    fn deposited(key: &str, tags: &[&str]) -> RecordedEvent {
        let name = EventName::from_static("account.deposited");
        let id = EventId::derived(Timestamp::EPOCH, key.as_bytes());
        let mut event = NewEvent::new(id, name, Content::Json, r#"{"cents":7}"#);
        event.tags.extend(tags.iter().map(|tag| Tag::parse(tag).unwrap()));
        let header = EventHeader {
            position: Position::new(1),
            version: StreamVersion::new(1),
            recorded_at: Timestamp::EPOCH,
            id,
            schema_version: event.schema_version,
            content: event.content,
        };
        let stream = StreamId::new("account", key).unwrap();
        RecordedEvent::from_new(header, stream.as_ref(), &event)
    }

    /// The partition of a key among 64.
    /// The only partition that has an event.
    fn at(partitions: &Partitions, event: &RecordedEvent) -> usize {
        let all = 0..partitions.count();
        let found: Vec<_> = all.filter(|at| partitions.has(*at, event)).collect();
        let [only] = found[..] else { panic!("{found:?}") };
        only
    }

    fn of(key: &str) -> usize {
        (hash(key.bytes()) % 64) as usize
    }

    #[test]
    fn an_event_is_in_the_partition_of_its_key_or_its_stream() {
        let ada = deposited("ada", &["branch:3", "customer:7", "customer:8"]);
        assert_eq!(at(&Partitions::one(), &ada), 0);
        assert_eq!(at(&Partitions::by_stream(64), &ada), of("account-ada"));
        assert_eq!(at(&Partitions::by_stream(8).of(64), &ada), of("account-ada"));
        let by_customer = Partitions::by_tag(64, "customer");
        assert_eq!(at(&by_customer, &ada), of("customer:7"));
        assert_eq!(at(&by_customer, &deposited("bob", &["branch:3"])), of("account-bob"));
        let by_cents = Partitions::by_event(64, |event: &AccountEvent| match event {
            AccountEvent::Deposited { cents } => Some(cents.to_string()),
            _ => None,
        });
        assert_eq!(at(&by_cents, &ada), of("7"));
        assert_eq!(at(&by_cents.of(1), &ada), 0);
    }

    #[test]
    fn the_number_of_partitions_is_the_requested_one_within_the_limits() {
        let counts = [0, 1, 8, 64, 65].map(|count| Partitions::by_stream(count).count());
        assert_eq!(counts, [1, 1, 8, 64, 64]);
        assert_eq!(Partitions::by_stream(8).of(3).count(), 3);
        assert_eq!((Partitions::one().count(), Partitions::default().count()), (1, 1));
    }

    #[test]
    fn partitions_with_the_same_number_and_key_are_equal() {
        let by_stream = Partitions::by_stream(8);
        assert_eq!(by_stream, Partitions::by_stream(8));
        assert_ne!(by_stream, Partitions::by_stream(4));
        let by_tag = Partitions::by_tag(8, "customer");
        assert_eq!(by_tag, by_tag.clone());
        assert_ne!(by_tag, Partitions::by_tag(8, "customer"), "their closures can't be compared");
        assert_ne!(by_tag, by_tag.of(4));
        assert_ne!(by_tag, by_stream);
        assert_eq!(format!("{by_stream:?}"), r#"Partitions { count: 8, by: "stream" }"#);
        assert_eq!(format!("{by_tag:?}"), r#"Partitions { count: 8, by: "a key" }"#);
    }

    #[test]
    fn keys_are_spread_about_evenly() {
        for count in [2, 3, 8, 64] {
            let mut found = vec![0_u64; count];
            for key in 0..6_400 {
                found[(hash(format!("order-{key}").bytes()) % count as u64) as usize] += 1;
            }
            let fair = 6_400 / count as u64;
            assert!(found.iter().all(|it| it.abs_diff(fair) < fair / 2), "{found:?}");
        }
    }
}
