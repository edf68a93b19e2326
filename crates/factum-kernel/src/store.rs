//! The log: the first of the kernel's two traits.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    batch::{AppendBatch, Appended},
    error::{AppendError, StoreError},
    guarantee::Guarantees,
    page::{Page, StreamBounds},
    position::Position,
    read::ReadQuery,
    stream::StreamId,
    time::Timestamp,
    version::{ExpectedVersion, StreamVersion},
};

/// A log of immutable events in streams. Object-safe; everything is built on it.
///
/// # Guarantees
/// Every store keeps these laws; `factum-testing` holds a suite that tests them.
/// 1. **Atomic**: a batch is stored whole or not at all, over all its streams, and its events get
///    consecutive positions in the batch's order.
/// 2. **Versions** of a stream are 1, 2, 3, ... and survive deletion.
/// 3. **Positions are gapless**: 1, 2, 3, ... over the log, in commit order; what was erased is
///    left as ranges.
/// 4. **Honest scan**: when a page says `scanned_through = p`, every matching event at or below p
///    was returned by this page or an earlier one of the same read.
/// 5. **Stable prefix**: what a read returned up to p never changes, except by erasure.
/// 6. **One winner** of concurrent appends that expect the same version.
/// 7. **Exact conditions**: one never lets a matching event through and never fails without one.
/// 8. **Idempotent retry**: see [`RETRY_WINDOW`].
/// 9. **Durable when acknowledged**, as [`guarantees`](Self::guarantees) claims.
/// 10. **Read your writes**: after `append` returned p, a read sees p; nothing is shown before it
///     is durable.
/// 11. **Unknown is said**: [`AppendError::Indeterminate`].
/// 12. **Time** never decreases with position.
/// 13. **Bounded**: every queue, page and batch has a limit.
#[async_trait]
pub trait EventStore: fmt::Debug + Send + Sync + 'static {
    /// Stores a batch whole or not at all.
    ///
    /// # Errors
    /// See [`AppendError`]: each variant says whether anything was stored.
    ///
    /// # Cancel safety
    /// A dropped future does not cancel an append that has begun; the outcome is then unknown,
    /// and the same batch can be repeated.
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError>;

    /// Reads one page.
    ///
    /// # Errors
    /// `Invalid` for a beginning that does not fit the scope, or a page without room.
    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError>;

    /// How far a stream reaches, and since when. All zero for a stream that never was.
    ///
    /// # Errors
    /// Those of the store.
    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo, StoreError>;

    /// Erases from a stream, or sets how much of it is kept, and answers with how it is then.
    /// Erasing what is erased already does nothing.
    ///
    /// # Errors
    /// `Conflict` for a deletion that expected another version; `Invalid` for a truncation that
    /// would leave nothing.
    async fn change(
        &self,
        stream: &StreamId,
        change: StreamChange,
    ) -> Result<StreamInfo, AppendError>;

    /// The last known position, to wake readers. A hint: it follows this handle's own appends at
    /// once, those of other processes within five seconds. [`close`](Self::close) wakes who waits
    /// for it too.
    fn head(&self) -> watch::Receiver<Position>;

    /// What this store claims.
    fn guarantees(&self) -> Guarantees;

    /// Lets what was accepted finish, then refuses, reads too, and wakes who waits for the head so
    /// that they see it. A second call does nothing.
    ///
    /// # Errors
    /// Those of the store.
    async fn close(&self) -> Result<(), StoreError>;
}

/// How long after its first attempt a batch is recognised when it is repeated: 10 minutes.
///
/// The time is the one inside the first event's id (UUIDv7; another kind of id counts as made
/// now). A batch with the same event ids is recognised *before* versions and conditions are
/// looked at, and answered with its positions and `replayed`. It is looked for in the streams that
/// it writes:
/// - Marked [`repeated`](AppendBatch::repeated): among all events of the window. After the window
///   it is `Invalid`, for no store can tell any more.
/// - Not marked: only where a version or condition would fail, and only where the batch would
///   stand: right after the version that it expected, and after the positions that its conditions
///   name. With nothing in its way it is stored, another time if need be: event ids are not unique.
///
/// What was not stored is not remembered. Of a batch that was stored twice, the first copy is the
/// answer. Some of the ids but not all: `Invalid`, unless the other events were erased; then the
/// batch was stored, and what is left answers for it.
///
/// The writer's clock may be ahead of the store's by this much. A batch that is from further ahead
/// is `Invalid` at its first attempt already, because no later one could be recognised.
///
/// If nothing is left of a repeated batch, and events after the version that it expected were
/// erased since, no store can tell either: `Invalid`. One that expects `Any` is taken for new.
pub const RETRY_WINDOW: Duration = Duration::from_secs(600);

/// How far a stream reaches, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StreamInfo {
    /// Versions: how many, what is gone, where it was deleted.
    pub bounds: StreamBounds,
    /// When the first kept event was recorded.
    pub first_at: Option<Timestamp>,
    /// When the last kept event was recorded.
    pub last_at: Option<Timestamp>,
    /// How much of it is kept.
    pub retention: Retention,
}

impl StreamInfo {
    /// A stream with these bounds, nothing known beside.
    pub fn new(bounds: StreamBounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Sets when its first and last kept events were recorded.
    #[must_use]
    pub fn with_times(mut self, first: Option<Timestamp>, last: Option<Timestamp>) -> Self {
        (self.first_at, self.last_at) = (first, last);
        self
    }

    /// Sets how much of it is kept.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }
}

/// How much of a stream is kept; older events are erased. Nothing set: everything.
///
/// Applied when it is set and after each group of appends to the stream, not by a clock of its
/// own: a stream that nobody writes keeps what it has. The last event always stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// The last so many events, at least 1.
    pub events_max: Option<u64>,
    /// Events recorded within this time.
    pub age_max: Option<Duration>,
}

/// What can be done to a stream beside appending to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamChange {
    /// Keep only so much, from now on. On an aggregate's stream use
    /// [`Repository::summarise`](crate::Repository::summarise), which writes a summary first.
    Retain(Retention),
    /// Erase the events before this version. It must exist: to erase all, delete.
    TruncateBefore(StreamVersion),
    /// Erase all events. It takes a version of its own, so that whoever loaded before it conflicts;
    /// what is appended later is a new beginning. Of a stream without events it does nothing.
    Delete(ExpectedVersion),
}
