//! The unit of an append: events for one or several streams, stored together or not at all.

use std::{fmt, ops::Deref, sync::Arc};

use crate::{
    event::NewEvent,
    id::EventId,
    position::Position,
    query::{AppendCondition, QueryItem},
    stream::StreamId,
    time::Timestamp,
    version::{ExpectedVersion, StreamVersion},
};

/// Events for one stream, and the version that the stream must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamWrite {
    /// The stream that is written.
    pub stream: StreamId,
    /// The condition on the stream's version before the batch. It must be `Any` if an earlier write
    /// of the batch has the same stream.
    pub expected: ExpectedVersion,
    /// The events, at least one.
    pub events: Vec<NewEvent>,
}

/// A stream whose version is compared but that is not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamCheck {
    /// The stream that is compared.
    pub stream: StreamId,
    /// The condition on the stream's version.
    pub expected: ExpectedVersion,
}

/// A unit of atomicity: the store appends all of it or nothing. Cheap to clone, because a batch
/// with an unknown outcome is repeated unchanged.
///
/// Events get consecutive positions in the order in which they were added. A batch may write to the
/// same stream several times. Only the first write of a stream has an expected version; later ones
/// expect `Any`. A stream is either written or checked, and checked only once.
///
/// ```
/// use factum_kernel::{AppendBatch, ExpectedVersion, StreamId, StreamVersion};
///
/// # fn example(withdrawn: factum_kernel::NewEvent, deposited: factum_kernel::NewEvent)
/// # -> Result<(), factum_kernel::InvalidStreamId> {
/// let transfer = AppendBatch::new()
///     .write(StreamId::new("account", "ada")?, StreamVersion::new(3), [withdrawn])
///     .write(StreamId::new("account", "bob")?, StreamVersion::new(7), [deposited])
///     .check(StreamId::new("bank", "main")?, ExpectedVersion::StreamExists);
/// assert_eq!(transfer.event_count(), 2);
/// # Ok(()) }
/// ```
///
/// A batch that writes to one stream twice:
///
/// ```
/// # use factum_kernel::{AppendBatch, ExpectedVersion, StreamId};
/// # fn example(opened: factum_kernel::NewEvent, noted: factum_kernel::NewEvent,
/// #     activated: factum_kernel::NewEvent) -> Result<(), factum_kernel::InvalidStreamId> {
/// let ada = StreamId::new("account", "ada")?;
/// let batch = AppendBatch::new()
///     .write(ada.clone(), ExpectedVersion::NoStream, [opened])
///     .write(StreamId::new("bank", "main")?, ExpectedVersion::Any, [noted])
///     .write(ada, ExpectedVersion::Any, [activated]);
/// assert_eq!(batch.writes().len(), 3);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct AppendBatch {
    parts: Arc<Parts>,
    repeated: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Parts {
    writes: Vec<StreamWrite>,
    checks: Vec<StreamCheck>,
    conditions: Vec<AppendCondition>,
}

impl AppendBatch {
    /// An empty batch. A store refuses a batch without events.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds events for a stream after the present ones. A store refuses a second write of the same
    /// stream that expects anything but `Any`.
    pub fn write(
        mut self,
        stream: StreamId,
        expected: impl Into<ExpectedVersion>,
        events: impl IntoIterator<Item = NewEvent>,
    ) -> Self {
        let events = events.into_iter().collect();
        self.parts_mut().writes.push(StreamWrite { stream, expected: expected.into(), events });
        self
    }

    /// Deletes a stream: appends the event `$stream.deleted` to it, with a position and a version
    /// like any other, and erases everything before it in the same moment. The stream keeps that
    /// event. Later events are a new beginning; the batch may hold some, after the deletion.
    ///
    /// The stream must have something to delete. For a stream without events, or one that is
    /// already deleted, the append is a conflict that expected `StreamExists`, whatever
    /// `expected` is. A deletion comes before everything else that the batch writes to its stream.
    ///
    /// It is a write of [`NewEvent::deletion`], so the id makes a repeated deletion known.
    ///
    /// ```
    /// use factum_kernel::{AppendBatch, EventId, ExpectedVersion, StreamId, Timestamp};
    ///
    /// let id = EventId::derived(Timestamp::EPOCH, b"ada asked to be forgotten");
    /// let ada = StreamId::new("account", "ada")?;
    /// let batch = AppendBatch::new().delete(ada, ExpectedVersion::Any, id);
    /// assert!(batch.events().all(|event| event.is_deletion()));
    /// # Ok::<(), factum_kernel::InvalidStreamId>(())
    /// ```
    pub fn delete(
        self,
        stream: StreamId,
        expected: impl Into<ExpectedVersion>,
        id: EventId,
    ) -> Self {
        self.write(stream, expected, [NewEvent::deletion(id)])
    }

    /// Adds events after the present ones; to the last write, if that has the same stream.
    pub(crate) fn add_events(
        &mut self,
        stream: &StreamId,
        expected: ExpectedVersion,
        events: Vec<NewEvent>,
    ) {
        let writes = &mut self.parts_mut().writes;
        match writes.last_mut() {
            Some(last) if last.stream == *stream => last.events.extend(events),
            _ => writes.push(StreamWrite { stream: stream.clone(), expected, events }),
        }
    }

    pub(crate) fn first_event_mut(&mut self) -> Option<&mut NewEvent> {
        self.parts_mut().writes.first_mut()?.events.first_mut()
    }

    pub(crate) fn add_condition(&mut self, condition: AppendCondition) {
        self.parts_mut().conditions.push(condition);
    }

    /// Adds a stream that must be at a version but is not written.
    pub fn check(mut self, stream: StreamId, expected: impl Into<ExpectedVersion>) -> Self {
        self.parts_mut().checks.push(StreamCheck { stream, expected: expected.into() });
        self
    }

    /// Adds a condition. Conditions are numbered from 0 in the order in which they were added.
    pub fn unless(mut self, condition: AppendCondition) -> Self {
        self.parts_mut().conditions.push(condition);
        self
    }

    /// Adds everything in another batch after the present content.
    pub fn and(mut self, other: Self) -> Self {
        self.repeated |= other.repeated;
        let other = Arc::unwrap_or_clone(other.parts);
        let parts = self.parts_mut();
        parts.writes.extend(other.writes);
        parts.checks.extend(other.checks);
        parts.conditions.extend(other.conditions);
        self
    }

    /// Marks the batch as one that may have been stored already: the store looks for its event ids
    /// before it checks versions and conditions. An unmarked batch whose versions and conditions
    /// hold is stored another time; see [`RETRY_WINDOW`](crate::RETRY_WINDOW).
    pub fn repeated(mut self) -> Self {
        self.repeated = true;
        self
    }

    fn parts_mut(&mut self) -> &mut Parts {
        Arc::make_mut(&mut self.parts)
    }

    /// The writes, in order. Several writes may have the same stream.
    pub fn writes(&self) -> &[StreamWrite] {
        &self.parts.writes
    }

    /// The streams that are compared but not written.
    pub fn checks(&self) -> &[StreamCheck] {
        &self.parts.checks
    }

    /// The conditions, in order.
    pub fn conditions(&self) -> &[AppendCondition] {
        &self.parts.conditions
    }

    /// True if the batch is marked as one that may have been stored already.
    pub fn is_repeated(&self) -> bool {
        self.repeated
    }

    /// True if the batch has no writes, no checks and no conditions.
    pub fn is_empty(&self) -> bool {
        *self.parts == Parts::default()
    }

    /// Every event, in the order in which positions will be given.
    pub fn events(&self) -> impl Iterator<Item = &NewEvent> {
        self.parts.writes.iter().flat_map(|write| &write.events)
    }

    /// The streams that the batch deletes.
    pub fn deletions(&self) -> impl Iterator<Item = &StreamId> {
        let deletes = |write: &&StreamWrite| write.events.iter().any(NewEvent::is_deletion);
        self.parts.writes.iter().filter(deletes).map(|write| &write.stream)
    }

    /// The number of events.
    pub fn event_count(&self) -> usize {
        self.parts.writes.iter().map(|write| write.events.len()).sum()
    }

    /// The number of types and tags in all conditions, repetitions included. An item without types
    /// and tags counts as one.
    pub fn name_count(&self) -> usize {
        self.items().map(|item| (item.types.len() + item.tags.len()).max(1)).sum()
    }

    /// The size that counts against the limits, in bytes: for each event its size and its stream
    /// id, the ids of the checked streams, and the types and tags in the conditions.
    pub fn size(&self) -> usize {
        let write = |write: &StreamWrite| {
            let ids = write.stream.as_str().len() * write.events.len();
            ids + write.events.iter().map(NewEvent::size).sum::<usize>()
        };
        let names = |item: &QueryItem| {
            let types = item.types.iter().map(|name| name.as_str().len()).sum::<usize>();
            types + item.tags.iter().map(|tag| tag.as_str().len()).sum::<usize>()
        };
        let written = self.parts.writes.iter().map(write).sum::<usize>();
        let checked = self.parts.checks.iter().map(|check| check.stream.as_str().len());
        written + checked.sum::<usize>() + self.items().map(names).sum::<usize>()
    }

    fn items(&self) -> impl Iterator<Item = &QueryItem> {
        self.parts.conditions.iter().flat_map(|condition| condition.fail_if_events_match.items())
    }
}

/// The version of the stream after each write of a batch, in the order of the writes. It
/// dereferences to a slice, and needs no allocation for a single write.
#[derive(Clone)]
pub struct Versions(Repr);

#[derive(Clone)]
enum Repr {
    One(StreamVersion),
    Many(Vec<StreamVersion>),
}

impl Deref for Versions {
    type Target = [StreamVersion];

    fn deref(&self) -> &[StreamVersion] {
        match &self.0 {
            Repr::One(version) => std::slice::from_ref(version),
            Repr::Many(versions) => versions,
        }
    }
}

impl From<Vec<StreamVersion>> for Versions {
    fn from(versions: Vec<StreamVersion>) -> Self {
        Self(Repr::Many(versions))
    }
}

impl FromIterator<StreamVersion> for Versions {
    fn from_iter<I: IntoIterator<Item = StreamVersion>>(versions: I) -> Self {
        let mut versions = versions.into_iter();
        Self(match (versions.next(), versions.next()) {
            (Some(only), None) => Repr::One(only),
            (first, second) => {
                Repr::Many(first.into_iter().chain(second).chain(versions).collect())
            }
        })
    }
}

impl<'v> IntoIterator for &'v Versions {
    type Item = &'v StreamVersion;
    type IntoIter = std::slice::Iter<'v, StreamVersion>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl Eq for Versions {}

impl<V: AsRef<[StreamVersion]> + ?Sized> PartialEq<V> for Versions {
    fn eq(&self, other: &V) -> bool {
        **self == *other.as_ref()
    }
}

impl AsRef<[StreamVersion]> for Versions {
    fn as_ref(&self) -> &[StreamVersion] {
        self
    }
}

/// The result of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The position of the batch's first event.
    pub first: Position,
    /// The position of the batch's last event. The positions between `first` and `last` are the
    /// batch's own.
    pub last: Position,
    /// The version of the stream after each write, in the order of the batch's writes.
    ///
    /// One case gives another version: an earlier attempt stored the batch, the write expected no
    /// version, and all of its events were erased since. Then this is a version between the write's
    /// own and the next one that is left, and a writer that expects it conflicts.
    pub versions: Versions,
    /// The time of the append, by the store's clock.
    pub recorded_at: Timestamp,
    /// True if an earlier attempt stored the batch. The other fields are those of that attempt.
    pub replayed: bool,
}

impl Appended {
    /// The result of storing one event now, without an earlier attempt.
    pub fn new(first: Position, versions: Versions, recorded_at: Timestamp) -> Self {
        Self { first, last: first, versions, recorded_at, replayed: false }
    }

    /// Sets the number of events, at least one.
    #[must_use]
    pub fn with_events(mut self, count: usize) -> Self {
        self.last = self.first.plus(count.saturating_sub(1) as u64);
        self
    }

    /// Marks the batch as stored by an earlier attempt.
    #[must_use]
    pub fn replayed(mut self) -> Self {
        self.replayed = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_a_slice_however_many_there_are() {
        for count in 0..4 {
            let plain: Vec<_> = (0..count).map(StreamVersion::new).collect();
            let versions: Versions = plain.iter().copied().collect();
            assert_eq!(versions, plain);
            assert_eq!(versions, Versions::from(plain.clone()));
            assert_eq!(format!("{versions:?}"), format!("{plain:?}"));
            assert!(versions.into_iter().eq(&plain));
        }
    }
}
