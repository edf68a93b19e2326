//! The log: the first of the kernel's two traits.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    batch::{AppendBatch, Appended},
    error::{AppendError, ChangeError, StoreError},
    guarantee::Guarantees,
    page::{Page, StreamBounds},
    position::Position,
    read::ReadQuery,
    stream::StreamId,
    time::Timestamp,
    version::StreamVersion,
};

/// A log of immutable events in streams. Object-safe; the whole framework is built on it.
///
/// # Guarantees
/// Every store keeps these laws; `factum-testing` holds a suite that tests them.
/// 1. **Atomic**: a batch is stored whole or not at all, over all its streams, and its events get
///    consecutive positions in the batch's order.
/// 2. **Versions** of a stream are 1, 2, 3, ... and survive deletion, which is an event with a
///    version of its own.
/// 3. **Positions are gapless**: 1, 2, 3, ... over the log, in commit order, those of deletions
///    included; erased positions remain known as ranges.
/// 4. **Honest scan**: when a page says `scanned_through = p`, every matching event at or below p
///    was returned by this page or an earlier one of the same read.
/// 5. **Stable prefix**: what a read returned up to p never changes, except by erasure. A deletion
///    erases at the moment of its own event: a page that shows the event shows nothing older of its
///    stream, and a page without it shows everything.
/// 6. **One winner** among concurrent appends that expect the same version.
/// 7. **Exact conditions**: a condition always fails when an event after its position matches, and
///    never fails without one.
/// 8. **Idempotent retry**: see [`RETRY_WINDOW`].
/// 9. **Durable when acknowledged**, as [`guarantees`](Self::guarantees) claims.
/// 10. **Read your writes**: after `append` returned p, a read sees p; no read shows an event
///     before it is durable.
/// 11. **Unknown outcomes are reported**, as [`AppendError::Indeterminate`].
/// 12. **Time** never decreases with position.
/// 13. **Bounded**: every queue, page and batch has a limit.
///
/// Outside of a tokio runtime a call works, or it is refused as `Invalid` and changes nothing.
#[async_trait]
pub trait EventStore: fmt::Debug + Send + Sync + 'static {
    /// Stores a batch whole or not at all.
    ///
    /// # Errors
    /// See [`AppendError`]: each variant says whether anything was stored.
    ///
    /// # Cancel safety
    /// Dropping the future does not cancel an append that has begun. The outcome is then unknown,
    /// and the caller can repeat the same batch.
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError>;

    /// Reads one page.
    ///
    /// # Errors
    /// `Invalid` if the beginning does not fit the scope, or if the page has no room for an event.
    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError>;

    /// Returns the bounds of a stream and the times of its kept events. All zero for a stream that
    /// never had an event.
    ///
    /// # Errors
    /// Those of the store.
    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo, StoreError>;

    /// Erases the beginning of a stream, or sets how many of its events are kept, and returns the
    /// stream's state after that. Erasing erased events again does nothing. To delete a stream,
    /// [append a deletion](AppendBatch::delete).
    ///
    /// # Errors
    /// `Invalid` if a truncation would leave no event, or a retention would keep none.
    async fn change(
        &self,
        stream: &StreamId,
        change: StreamChange,
    ) -> Result<StreamInfo, ChangeError>;

    /// The last known position, to wake readers. It is a hint: it shows appends through this handle
    /// at once, and those of other processes within five seconds. [`close`](Self::close) also wakes
    /// the tasks that wait for it.
    fn head(&self) -> watch::Receiver<Position>;

    /// The claims of this store.
    fn guarantees(&self) -> Guarantees;

    /// Finishes the accepted requests and refuses all later ones, reads included. Tasks that wait
    /// for the head wake up, so that they notice. A second call does nothing.
    ///
    /// # Errors
    /// Those of the store.
    async fn close(&self) -> Result<(), StoreError>;
}

/// The time for which a store recognises a repeated batch, counted from the first attempt: 10
/// minutes.
///
/// The time of the first attempt is the one inside the first event's id (UUIDv7; any other id
/// counts as made now). The store recognises a batch by its event ids *before* it checks versions
/// and conditions, and answers with the stored positions and `replayed`. It looks in the streams
/// that the batch writes:
/// - A batch marked [`repeated`](AppendBatch::repeated): among all events of the window. After the
///   window the batch is `Invalid`, because no store can tell any more whether it was stored.
/// - A batch without the mark: only if a version or condition would fail, and only at the place
///   where the batch would be: right after the version that it expected, and after the positions
///   that its conditions name. If its versions and conditions hold, the batch is stored, even if it
///   was stored before: event ids are not unique.
///
/// A store remembers only batches that it stored. If a batch was stored twice, the answer is the
/// first copy. If the store finds some of the ids but not all, the batch is `Invalid`, unless the
/// other events were erased: then the batch was stored, and the events that are left give the
/// answer.
///
/// The writer's clock may be ahead of the store's clock by this time. A batch from further ahead is
/// `Invalid` already at its first attempt, because no later attempt could be recognised.
///
/// If nothing is left of a repeated batch, and events after the version that it expected were
/// erased since, no store can tell whether it was stored: the batch is `Invalid`. A batch that
/// expects `Any` counts as new in this case.
pub const RETRY_WINDOW: Duration = Duration::from_secs(600);

/// The bounds of a stream, the times of its kept events, and its retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StreamInfo {
    /// The version of the stream, its erased versions, and the version of its deletion.
    pub bounds: StreamBounds,
    /// The time at which the first kept event was recorded.
    pub first_at: Option<Timestamp>,
    /// The time at which the last kept event was recorded.
    pub last_at: Option<Timestamp>,
    /// The limit on the events that are kept.
    pub retention: Retention,
}

impl StreamInfo {
    /// A stream with these bounds, no times, and no retention.
    pub fn new(bounds: StreamBounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Sets the times at which the first and last kept events were recorded.
    #[must_use]
    pub fn with_times(mut self, first: Option<Timestamp>, last: Option<Timestamp>) -> Self {
        (self.first_at, self.last_at) = (first, last);
        self
    }

    /// Sets the limit on the events that are kept.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }
}

/// The limit on the events that a stream keeps; the store erases older ones. Without a limit
/// everything is kept.
///
/// A store applies it when it is set and after each group of appends to the stream. It runs no
/// timer: a stream without appends keeps its events. The last event always stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Keep the last N events; N is at least 1.
    pub events_max: Option<u64>,
    /// Keep events recorded within this time.
    pub age_max: Option<Duration>,
}

/// A change to a stream other than an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamChange {
    /// Apply this retention from now on. On an aggregate's stream use
    /// [`Repository::summarise`](crate::Repository::summarise), which writes a summary first.
    Retain(Retention),
    /// Erase the events before this version. The version must exist: to erase all events,
    /// [delete](AppendBatch::delete).
    TruncateBefore(StreamVersion),
}
