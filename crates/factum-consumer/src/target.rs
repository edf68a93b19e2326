//! Targets: the stores of a consumer's effects and progress.

use std::{error::Error, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use factum_kernel::{CodecError, ErrorKind, StoreError, StoreErrorKind, StreamId};
use tokio::task::JoinHandle;

use crate::{error::HandleError, name::ConsumerName};

/// The store to which a consumer writes its effects and its progress, in one write. Therefore each
/// event takes effect exactly once.
///
/// The stored bytes belong to the consumer; a target does not interpret them.
///
/// # Guarantees
/// A target guarantees:
/// - [`commit`](Self::commit) stores the effects and the [`Save`] completely or not at all, and
///   only if the stored fence is the expected one. Otherwise it returns an error;
///   [`TargetError::Unknown`] if it does not know the outcome.
/// - A transaction that is dropped stores nothing.
/// - After `commit` has returned, [`open`](Self::open) returns what it stored.
pub trait Target: Send + Sync + 'static {
    /// The transaction to which handlers write.
    type Tx: Send + 'static;

    /// True if partitions of a consumer may write at the same time, each under its own name.
    const IS_PARALLEL: bool = false;

    /// True if the effects are not in the transaction, so that they hold although it is not
    /// committed. If an event fails, the progress up to it is stored first, and only that event is
    /// handled again. Batches of such a target are committed without effects.
    const HAS_EFFECTS_ELSEWHERE: bool = false;

    /// Prepares the target, and reads a consumer's stored progress. Also called after an error:
    /// everything that was not stored must be discarded then.
    fn open(
        &self,
        consumer: &ConsumerName,
    ) -> impl Future<Output = Result<Opened, TargetError>> + Send;

    /// Reads a consumer's stored progress and changes nothing. Also called after an event has
    /// failed, to see whether the target answers: an error then means that the attempt does not
    /// count.
    fn look(
        &self,
        consumer: &ConsumerName,
    ) -> impl Future<Output = Result<Opened, TargetError>> + Send {
        self.open(consumer)
    }

    /// Begins a batch.
    fn begin(
        &self,
        consumer: &ConsumerName,
    ) -> impl Future<Output = Result<Self::Tx, TargetError>> + Send;

    /// Begins a batch in which each event may take `event_max`. A target whose statements can wait
    /// for other transactions gives up earlier, and returns true from
    /// [`is_to_blame`](Self::is_to_blame).
    fn begin_within(
        &self,
        consumer: &ConsumerName,
        event_max: Duration,
    ) -> impl Future<Output = Result<Self::Tx, TargetError>> + Send {
        let _ = event_max;
        self.begin(consumer)
    }

    /// Stores a batch and the progress. Returns the new fence, which is larger than the expected
    /// one.
    fn commit(
        &self,
        consumer: &ConsumerName,
        tx: Self::Tx,
        save: Save,
    ) -> impl Future<Output = Result<Fence, TargetError>> + Send;

    /// Stores progress without effects. Returns the new fence.
    fn save(
        &self,
        consumer: &ConsumerName,
        save: Save,
    ) -> impl Future<Output = Result<Fence, TargetError>> + Send {
        async { self.commit(consumer, self.begin(consumer).await?, save).await }
    }

    /// Removes effects and progress of all partitions, so that the next start is the first.
    fn clear(
        &self,
        consumer: &ConsumerName,
    ) -> impl Future<Output = Result<(), TargetError>> + Send;

    /// Runs the handlers of a batch in a task. A target with blocking handlers gives them a thread
    /// on which blocking does no harm. The worker aborts the task when it no longer waits for it.
    fn spawn<T: Send + 'static>(
        &self,
        handling: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        tokio::spawn(handling)
    }

    /// True if the target, and not the event, caused a handler's error: the target can't be
    /// reached, or another transaction was in the way. The batch is then tried again without a
    /// limit. Called only for errors whose sources show no outage, neither by themselves nor
    /// through [`Consumers::with_outages`](crate::Consumers::with_outages).
    fn is_to_blame(&self, error: &HandleError) -> bool {
        let _ = error;
        false
    }

    /// The cause of a handler's error, if the error itself does not show it: the transaction had
    /// ended before.
    fn explain(
        tx: &mut Self::Tx,
        error: &HandleError,
    ) -> impl Future<Output = Option<&'static str>> + Send {
        let _ = (tx, error);
        async { None }
    }

    /// The reason why a batch can't be written to any more, if its handlers have ended the
    /// transaction. Called after each event, so it must be quick.
    fn has_ended(tx: &Self::Tx) -> Option<&'static str> {
        let _ = tx;
        None
    }
}

/// The number of a stored progress; each save has a larger one. Zero: no progress is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Fence(pub u64);

impl Fence {
    /// The fence after a save that expected this one.
    pub(crate) fn moved_to(self, fence: Self) -> Self {
        assert!(fence > self, "a save has a larger fence: expected={self:?} stored={fence:?}");
        fence
    }
}

/// The stored progress of a consumer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Opened {
    /// The fence of the progress.
    pub fence: Fence,
    /// The encoded progress; `None` before the first start.
    pub progress: Option<Bytes>,
    /// The encoded mark: whether the consumer was at work, and on which events.
    pub mark: Option<Bytes>,
    /// The encoded dead letters, by stream.
    pub letters: Vec<(StreamId, Bytes)>,
}

/// A consumer's progress to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Save {
    /// The fence that must be stored now; otherwise the save fails.
    pub expected: Fence,
    /// The encoded progress.
    pub progress: Bytes,
    /// The encoded mark; `None` leaves the stored one.
    pub mark: Option<Bytes>,
    /// The dead letters to store or, if `None`, to remove, by stream.
    pub letters: Vec<(StreamId, Option<Bytes>)>,
    /// The number of events that the batch handled.
    pub events: usize,
}

/// The reason why a target could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Another process has stored progress since. Nothing was stored.
    #[error("another process has moved the consumer's checkpoint")]
    Fenced,
    /// Another partition has changed a value that this batch has read. Nothing was stored. Handle
    /// the batch again: it then reads the current values.
    #[error("another partition has changed a value that the batch has read")]
    Overtaken,
    /// The write may or may not be stored. [`Target::open`] shows which.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(#[source] Arc<dyn Error + Send + Sync>),
    /// The batch is too large for one write; half of it may fit. Nothing was stored.
    #[error("the batch is too large: {0}")]
    TooLarge(#[source] Arc<dyn Error + Send + Sync>),
    /// The target can't be reached at the moment. Nothing was stored.
    #[error("{0}")]
    Unavailable(#[source] Arc<dyn Error + Send + Sync>),
    /// The target refuses this write. Nothing was stored.
    #[error("{0}")]
    Refused(#[source] Arc<dyn Error + Send + Sync>),
    /// The target is closed or damaged. Nothing was stored.
    #[error("{0}")]
    Broken(#[source] Arc<dyn Error + Send + Sync>),
}

impl TargetError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Fenced | Self::Overtaken => ErrorKind::Conflict,
            Self::Unknown(_) => ErrorKind::Unknown,
            Self::TooLarge(_) | Self::Refused(_) => ErrorKind::Invalid,
            Self::Unavailable(_) => ErrorKind::Unavailable,
            Self::Broken(error) => ErrorKind::of(&**error).unwrap_or(ErrorKind::Corrupt),
        }
    }
}

impl From<StoreError> for TargetError {
    fn from(error: StoreError) -> Self {
        match error.kind() {
            StoreErrorKind::Invalid => Self::Refused(Arc::new(error)),
            kind if kind.is_permanent() => Self::Broken(Arc::new(error)),
            _ => Self::Unavailable(Arc::new(error)),
        }
    }
}

/// The error for stored progress that can't be decoded.
pub(crate) fn unreadable(error: CodecError) -> TargetError {
    TargetError::Broken(Arc::new(error))
}
