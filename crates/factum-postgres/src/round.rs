//! A round: one call of the database for members of a group. It selects the members and builds the
//! parameters.
//!
//! The database judges each member by the state before the group. So a member that depends on an
//! earlier one waits: for the database's answer, or for the next round.

use std::collections::HashSet;

use bytes::BytesMut;
use factum_backend::{EventIndex, expectations};
use factum_kernel::{
    AppendBatch, EventId, ExpectedVersion, NewEvent, Position, StreamId, StreamVersion, Tag,
    Timestamp, encode_tags,
};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{link::Parameter, number::signed};

/// A member of a group that has no outcome yet.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    /// Its index in the group.
    pub(crate) index: usize,
    /// The batch, marked as repeated if it must be searched for.
    pub(crate) batch: AppendBatch,
    /// The earliest time at which its events may have been recorded, if it is marked.
    pub(crate) since: Timestamp,
}

/// The expected versions that are not numbers, in the database's terms.
const ANY: i64 = -1;
const EXISTS: i64 = -2;

/// The parameters of one call that are single numbers, in the database's terms.
#[derive(Debug)]
pub(crate) struct RoundNumbers {
    /// The longest wait for the log's lock.
    pub(crate) lock_ms: i32,
    /// The delay before the commit, for tests.
    pub(crate) hold_us: i64,
    /// The time of the events.
    pub(crate) now: i64,
    /// The known head of the log.
    pub(crate) known: i64,
}

/// The parameters of one call, column by column. Numbers of streams, members and events count from
/// 1.
#[derive(Debug, Default)]
pub(crate) struct Round<'g> {
    /// The members of the round.
    pub(crate) members: Vec<&'g Pending>,
    /// The members that wait for its outcome.
    pub(crate) waiting: Vec<&'g Pending>,
    /// Every stream that members or waiting members touch, once.
    pub(crate) streams: Vec<&'g StreamId>,
    /// The member of each condition, and the condition's index in it.
    pub(crate) conditions: Vec<(usize, usize)>,
    numbers: hash::Numbers<'g>,
    stream_names: Vec<&'g str>,
    some_are_repeated: bool,
    /// One per member, or none if no member is repeated; the same for `since`.
    repeated: Vec<bool>,
    since: Vec<i64>,
    touch_members: Vec<i32>,
    touch_streams: Vec<i32>,
    touch_expected: Vec<i64>,
    condition_members: Vec<i32>,
    condition_after: Vec<i64>,
    condition_items: Vec<i32>,
    item_types: Vec<i32>,
    item_tags: Vec<i32>,
    types: Vec<&'g str>,
    tags: Vec<&'g str>,
    event_members: Vec<i32>,
    event_numbers: Vec<i32>,
    event_ahead: Vec<i32>,
    event_types: Vec<&'g str>,
    event_schemas: Vec<i64>,
    event_contents: Vec<i32>,
    event_ids: Vec<Uuid>,
    event_tags: Vec<Vec<u8>>,
    event_metadata: Vec<Vec<u8>>,
    event_payloads: Vec<&'g [u8]>,
    label_events: Vec<i32>,
    labels: Vec<&'g str>,
    /// The number of this round's events in each stream, by the stream's number.
    ahead: Vec<i32>,
}

mod hash {
    use std::collections::HashMap;

    use factum_kernel::StreamId;

    /// The number of each stream.
    pub(super) type Numbers<'g> = HashMap<&'g StreamId, i32>;
}

impl<'g> Round<'g> {
    /// Selects the members that depend on no other member of the round; the first always is one.
    pub(crate) fn gather(pending: &'g [Pending]) -> Self {
        let some_are_repeated = pending.iter().any(|member| member.batch.is_repeated());
        let mut round = Self { some_are_repeated, ..Self::default() };
        // The streams that members write, or that members wait for.
        let mut written = HashSet::new();
        let mut waited = HashSet::new();
        let mut ids: HashSet<EventId> = HashSet::new();
        // The events of members, at any positions, if there are conditions that may match them.
        let some_have_conditions = pending.iter().any(|it| !it.batch.conditions().is_empty());
        let mut index = EventIndex::default();
        for member in pending {
            let batch = &member.batch;
            let depends = expectations(batch).any(|(stream, expected)| {
                waited.contains(stream)
                    || (expected != ExpectedVersion::Any && written.contains(stream))
            }) || (batch.is_repeated()
                && batch.events().any(|event| ids.contains(&event.id)))
                || batch.conditions().iter().any(|condition| {
                    let meant = &condition.fail_if_events_match;
                    index.first_match(meant, Position::ZERO).is_some()
                });
            let streams = batch.writes().iter().map(|write| &write.stream);
            if depends {
                waited.extend(streams);
                for (stream, _) in expectations(batch) {
                    round.number(stream);
                }
                round.waiting.push(member);
            } else {
                written.extend(streams);
                if some_are_repeated {
                    ids.extend(batch.events().map(|event| event.id));
                }
                for event in batch.events().filter(|_| some_have_conditions) {
                    index.push(Position::new(index.len() as u64 + 1), event);
                }
                round.add(member);
            }
        }
        round.stream_names = round.streams.iter().map(|stream| stream.as_str()).collect();
        round
    }

    fn number(&mut self, stream: &'g StreamId) -> i32 {
        *self.numbers.entry(stream).or_insert_with(|| {
            self.streams.push(stream);
            self.ahead.push(0);
            count(self.streams.len())
        })
    }

    fn add(&mut self, member: &'g Pending) {
        self.members.push(member);
        let batch = &member.batch;
        let number = count(self.members.len());
        if self.some_are_repeated {
            self.repeated.push(batch.is_repeated());
            self.since.push(signed(member.since.as_micros()));
        }
        for (stream, expected) in expectations(batch) {
            let stream = self.number(stream);
            if expected != ExpectedVersion::Any {
                self.touch_members.push(number);
                self.touch_streams.push(stream);
                self.touch_expected.push(expected_number(expected));
            }
        }
        for (index, condition) in batch.conditions().iter().enumerate() {
            self.conditions.push((self.members.len() - 1, index));
            self.condition_members.push(number);
            self.condition_after.push(signed(condition.after.value()));
            self.condition_items.push(count(condition.fail_if_events_match.items().len()));
            let items = Items::of(condition.fail_if_events_match.items());
            self.item_types.extend(items.item_types);
            self.item_tags.extend(items.item_tags);
            self.types.extend(items.types);
            self.tags.extend(items.tags);
        }
        for write in batch.writes() {
            let stream = self.number(&write.stream);
            for event in &write.events {
                self.add_event(number, stream, event);
            }
        }
    }

    fn add_event(&mut self, member: i32, stream: i32, event: &'g NewEvent) {
        let ahead = &mut self.ahead[stream as usize - 1];
        *ahead += 1;
        self.event_ahead.push(*ahead);
        self.event_members.push(member);
        self.event_numbers.push(stream);
        self.event_types.push(event.name.as_str());
        self.event_schemas.push(i64::from(event.schema_version));
        self.event_contents.push(i32::from(event.content.number()));
        self.event_ids.push(event.id.as_uuid());
        let mut bytes = BytesMut::new();
        encode_tags(&event.tags, &mut bytes);
        self.event_tags.push(bytes.to_vec());
        bytes.clear();
        event.metadata.encode(&mut bytes);
        self.event_metadata.push(bytes.to_vec());
        self.event_payloads.push(&event.payload);
        let place = count(self.event_ids.len());
        let labels = event.tags.iter().map(Tag::as_str).enumerate();
        // If an event has the same tag twice, it counts once.
        let once = |(at, tag): &(usize, &str)| {
            !event.tags[..*at].iter().any(|other| other.as_str() == *tag)
        };
        for (_, tag) in labels.filter(once) {
            self.label_events.push(place);
            self.labels.push(tag);
        }
    }

    /// The parameters of the database's function: the four numbers first, then the columns.
    pub(crate) fn parameters<'a>(&'a self, numbers: &'a RoundNumbers) -> Vec<Parameter<'a>> {
        vec![
            (&numbers.lock_ms, Type::INT4),
            (&numbers.hold_us, Type::INT8),
            (&numbers.now, Type::INT8),
            (&numbers.known, Type::INT8),
            (&self.stream_names, Type::TEXT_ARRAY),
            (&self.repeated, Type::BOOL_ARRAY),
            (&self.since, Type::INT8_ARRAY),
            (&self.touch_members, Type::INT4_ARRAY),
            (&self.touch_streams, Type::INT4_ARRAY),
            (&self.touch_expected, Type::INT8_ARRAY),
            (&self.condition_members, Type::INT4_ARRAY),
            (&self.condition_after, Type::INT8_ARRAY),
            (&self.condition_items, Type::INT4_ARRAY),
            (&self.item_types, Type::INT4_ARRAY),
            (&self.item_tags, Type::INT4_ARRAY),
            (&self.types, Type::TEXT_ARRAY),
            (&self.tags, Type::TEXT_ARRAY),
            (&self.event_members, Type::INT4_ARRAY),
            (&self.event_numbers, Type::INT4_ARRAY),
            (&self.event_ahead, Type::INT4_ARRAY),
            (&self.event_types, Type::TEXT_ARRAY),
            (&self.event_schemas, Type::INT8_ARRAY),
            (&self.event_contents, Type::INT4_ARRAY),
            (&self.event_ids, Type::UUID_ARRAY),
            (&self.event_tags, Type::BYTEA_ARRAY),
            (&self.event_metadata, Type::BYTEA_ARRAY),
            (&self.event_payloads, Type::BYTEA_ARRAY),
            (&self.label_events, Type::INT4_ARRAY),
            (&self.labels, Type::TEXT_ARRAY),
        ]
    }
}

/// The items of a query, column by column: the number of types and of tags in each, and all of
/// them.
#[derive(Debug, Default)]
pub(crate) struct Items<'q> {
    pub(crate) item_types: Vec<i32>,
    pub(crate) item_tags: Vec<i32>,
    pub(crate) types: Vec<&'q str>,
    pub(crate) tags: Vec<&'q str>,
}

impl<'q> Items<'q> {
    pub(crate) fn of(items: &'q [factum_kernel::QueryItem]) -> Self {
        let mut all = Self::default();
        for item in items {
            all.item_types.push(count(item.types.len()));
            all.item_tags.push(count(item.tags.len()));
            all.types.extend(item.types.iter().map(factum_kernel::EventName::as_str));
            all.tags.extend(item.tags.iter().map(Tag::as_str));
        }
        all
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).expect("the limits of a group are far below")
}

/// An expected version in the database's terms.
fn expected_number(expected: ExpectedVersion) -> i64 {
    match expected {
        ExpectedVersion::Any => ANY,
        ExpectedVersion::StreamExists => EXISTS,
        ExpectedVersion::NoStream => 0,
        ExpectedVersion::Exact(version) => exact(version),
    }
}

fn exact(version: StreamVersion) -> i64 {
    signed(version.value())
}
