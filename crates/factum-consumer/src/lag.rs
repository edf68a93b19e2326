//! The lag of a consumer, counted by any process from what is stored: a consumer stores with its
//! mark which events it wants.

use factum_kernel::{
    Category, Checkpoint, Diverged, EventName, EventStore, PAGE_EVENTS_MAX, Position, Query,
    QueryItem, ReadFrom, ReadQuery, RecordedEvent, Scope, StoreError, StreamId, Tag, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    option::{ConsumerOptions, is_in_scope},
    partition::Partitions,
    stored::StoredConsumer,
    work::EventNames,
};

/// The most events that are read to count a lag exactly. Positions after them count as one event
/// each.
const COUNTED_MAX: u64 = 100_000;

/// The lag of a consumer, as its stored progress and the log show it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoredLag {
    /// The consumer has this many events to handle.
    Behind {
        /// The number of events after its checkpoint that it wants: 0 if it has nothing to do. Of
        /// a consumer that an earlier version of the program ran, all events count. So do all after
        /// the first 100,000.
        events: u64,
        /// The time when the first of them was recorded.
        since: Option<Timestamp>,
    },
    /// The log is not the one that the checkpoint belongs to, so there is no number. The consumer
    /// stops with this reason when it starts.
    Diverged(Diverged),
}

/// The events that a consumer wants, as other processes can read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    scope: StoredScope,
    names: EventNames,
    /// The number of the partition, and of all partitions. `None` if only the consumer knows which
    /// partition an event belongs to; all events then count.
    partition: Option<(usize, usize)>,
}

/// The stored form of a [`Scope`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum StoredScope {
    Log,
    Stream(String),
    Category(String),
    /// Types and tags of each item.
    Query(Vec<(Vec<String>, Vec<String>)>),
}

impl Wanted {
    /// The events of these names in the scope and partition of a consumer.
    pub fn new(names: EventNames, options: &ConsumerOptions, partition: usize) -> Self {
        let partitions = &options.partitions;
        let is_known = partitions.is_by_stream();
        let partition = is_known.then_some((partition, partitions.count()));
        Self { scope: StoredScope::of(&options.scope), names, partition }
    }

    /// The scope, if this version of the program can read it.
    fn scope(&self) -> Option<Scope> {
        Some(match &self.scope {
            StoredScope::Log => Scope::Log,
            StoredScope::Stream(stream) => Scope::Stream(stream.parse::<StreamId>().ok()?),
            StoredScope::Category(category) => Scope::Category(Category::parse(category).ok()?),
            StoredScope::Query(items) => {
                let item = |(types, tags): &(Vec<String>, Vec<String>)| {
                    let types = types.iter().map(|name| EventName::parse(name).ok());
                    let tags = tags.iter().map(|tag| Tag::parse(tag).ok());
                    let types = types.collect::<Option<_>>()?;
                    Some(QueryItem { types, tags: tags.collect::<Option<_>>()? })
                };
                Scope::Query(Query::new(items.iter().map(item).collect::<Option<Vec<_>>>()?))
            }
        })
    }

    fn wants(&self, event: &RecordedEvent) -> bool {
        let is_here =
            self.partition.is_none_or(|(at, count)| Partitions::by_stream(count).has(at, event));
        is_here && self.names.have(event.name())
    }
}

impl StoredScope {
    fn of(scope: &Scope) -> Self {
        match scope {
            Scope::Log => Self::Log,
            Scope::Stream(stream) => Self::Stream(stream.to_string()),
            Scope::Category(category) => Self::Category(category.as_str().to_owned()),
            Scope::Query(query) => {
                let texts = |item: &QueryItem| {
                    let types = item.types.iter().map(|name| name.as_str().to_owned());
                    let tags = item.tags.iter().map(|tag| tag.as_str().to_owned());
                    (types.collect(), tags.collect())
                };
                Self::Query(query.items().iter().map(texts).collect())
            }
        }
    }
}

/// Counts the events that a stored consumer has still to handle.
///
/// # Errors
/// Errors of the store.
pub async fn stored_lag(
    events: &dyn EventStore,
    consumer: &StoredConsumer,
) -> Result<StoredLag, StoreError> {
    if let Some(checkpoint) = consumer.checkpoint
        && let Some(diverged) = diverged(events, checkpoint).await?
    {
        return Ok(StoredLag::Diverged(diverged));
    }
    let after = consumer.position();
    let scope = consumer.wanted.as_ref().and_then(Wanted::scope);
    let wants = |event: &RecordedEvent| match (&consumer.wanted, &scope) {
        (Some(wanted), Some(scope)) => is_in_scope(scope, event) && wanted.wants(event),
        _ => true,
    };
    let query = match scope.clone() {
        None | Some(Scope::Log) => ReadQuery::log(),
        Some(Scope::Stream(stream)) => ReadQuery::stream(stream),
        Some(Scope::Category(category)) => ReadQuery::category(category),
        Some(Scope::Query(query)) => ReadQuery::matching(query),
    };
    let query = query.with_events_max(PAGE_EVENTS_MAX);
    let mut next = Some(query.from(ReadFrom::Position(after.next())));
    let mut lag = 0_u64;
    let mut since = None;
    let mut read = 0_u64;
    while let Some(query) = next {
        let page = events.read(query.clone()).await?;
        for event in page.events.iter().filter(|event| wants(event)) {
            lag += 1;
            since = since.or(Some(event.recorded_at()));
        }
        read += page.events.len() as u64;
        next = query.next(&page);
        if read >= COUNTED_MAX && next.is_some() {
            lag += page.head.value().saturating_sub(page.scanned_through.value());
            break;
        }
    }
    Ok(StoredLag::Behind { events: lag, since })
}

/// The difference between the log and a checkpoint, if the log is another one.
pub async fn diverged(
    events: &dyn EventStore,
    checkpoint: Checkpoint,
) -> Result<Option<Diverged>, StoreError> {
    let query = ReadQuery::log().from(ReadFrom::Position(checkpoint.position)).with_events_max(1);
    let page = events.read(query).await?;
    Ok(checkpoint.verify(&page).err())
}

impl StoredConsumer {
    /// The position up to which every event is handled, skipped or parked.
    pub fn position(&self) -> Position {
        self.checkpoint.map_or(self.began_after.unwrap_or_default(), |it| it.position)
    }
}
