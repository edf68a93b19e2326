//! Where a consumer's effects and its progress are kept.

mod checkpoints;

use std::{error::Error, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use factum_kernel::{CodecError, ErrorKind, StoreError, StoreErrorKind, StreamId};
use tokio::task::JoinHandle;

use crate::{error::HandleError, name::ConsumerName};

pub(crate) use checkpoints::layout_key;
pub use checkpoints::{Checkpoints, checkpoint_key, written};

/// Where a consumer writes: its effects and its progress, in one write. That is what makes an
/// event take effect exactly once.
///
/// The bytes that it keeps are the consumer's own; a target looks into none of them.
///
/// # Guarantees
/// What a target has to keep:
/// - [`commit`](Self::commit) stores the effects and the [`Save`] all or nothing, and only where
///   the fence is the expected one; or it says [`TargetError::Unknown`].
/// - A transaction that is dropped leaves nothing behind.
/// - After `commit` returned, [`open`](Self::open) gives what it stored.
pub trait Target: Send + Sync + 'static {
    /// What handlers write to.
    type Tx: Send + 'static;

    /// Whether partitions of a consumer may write at the same time, each under a name of its own.
    const IS_PARALLEL: bool = false;

    /// Makes ready what is needed, and reads what is kept of a consumer. Also after something went
    /// wrong, so that nothing of what is not stored stays.
    fn open(
        &self,
        consumer: &ConsumerName,
    ) -> impl Future<Output = Result<Opened, TargetError>> + Send;

    /// Reads what is kept, for somebody who only looks. Also asked after an event has failed, to
    /// see whether the target answers: an error then means that the attempt does not count.
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

    /// Begins a batch whose events may take so long each. A target whose statements wait for others
    /// gives up before that time is over, and says that it is [to blame](Self::is_to_blame).
    fn begin_within(
        &self,
        consumer: &ConsumerName,
        event_max: Duration,
    ) -> impl Future<Output = Result<Self::Tx, TargetError>> + Send {
        let _ = event_max;
        self.begin(consumer)
    }

    /// Stores a batch and the progress. Answers with the new fence.
    fn commit(
        &self,
        consumer: &ConsumerName,
        tx: Self::Tx,
        save: Save,
    ) -> impl Future<Output = Result<Fence, TargetError>> + Send;

    /// Stores progress without effects. Answers with the new fence.
    fn save(
        &self,
        consumer: &ConsumerName,
        save: Save,
    ) -> impl Future<Output = Result<Fence, TargetError>> + Send {
        async { self.commit(consumer, self.begin(consumer).await?, save).await }
    }

    /// Removes effects and progress, of all partitions: the next start is the first.
    fn clear(
        &self,
        consumer: &ConsumerName,
    ) -> impl Future<Output = Result<(), TargetError>> + Send;

    /// Handles the events of a batch, in a task. A target whose handlers block gives them a thread
    /// on which that does no harm. The task is aborted when nobody waits for it any more.
    fn spawn<T: Send + 'static>(
        &self,
        handling: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        tokio::spawn(handling)
    }

    /// Whether what a handler said is no event's fault: the target can't be reached, or another
    /// transaction was in the way. The batch is tried again then, as often as it takes. Asked only
    /// of errors whose sources tell of no outage, by themselves or by
    /// [`Consumers::with_outages`](crate::Consumers::with_outages).
    fn is_to_blame(&self, error: &HandleError) -> bool {
        let _ = error;
        false
    }

    /// What has led to a handler's error, where the error itself does not say it: the transaction
    /// has ended before.
    fn explain(
        tx: &mut Self::Tx,
        error: &HandleError,
    ) -> impl Future<Output = Option<&'static str>> + Send {
        let _ = (tx, error);
        async { None }
    }

    /// Why nothing can be written to a batch any more, if its handlers have ended it. Asked after
    /// each event, so it must be quick.
    fn has_ended(tx: &Self::Tx) -> Option<&'static str> {
        let _ = tx;
        None
    }
}

/// The number of a stored progress: each save has a larger one. Zero: nothing is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Fence(pub u64);

/// What is kept of a consumer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Opened {
    /// The number of the progress.
    pub fence: Fence,
    /// How far it has come.
    pub progress: Option<Bytes>,
    /// What it was about.
    pub mark: Option<Bytes>,
    /// What is parked, by stream.
    pub letters: Vec<(StreamId, Bytes)>,
}

/// What is to be kept of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Save {
    /// What the fence has to be.
    pub expected: Fence,
    /// How far it has come.
    pub progress: Bytes,
    /// What it is about; `None`: as it was.
    pub mark: Option<Bytes>,
    /// What is parked anew, or (`None`) no more.
    pub letters: Vec<(StreamId, Option<Bytes>)>,
    /// How many events the batch handled.
    pub events: usize,
}

/// Why a target did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The fence is another: somebody else works on the consumer. Nothing is stored.
    #[error("another process has moved the consumer's checkpoint")]
    Fenced,
    /// Another partition has changed what this batch has read. Nothing is stored; done again, the
    /// batch reads what is there now.
    #[error("another partition has changed what was read")]
    Overtaken,
    /// It may or may not be stored. [`Target::open`] tells.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(#[source] Arc<dyn Error + Send + Sync>),
    /// The batch is more than fits one write; half of it may fit. Nothing is stored.
    #[error("the batch is too large: {0}")]
    TooLarge(#[source] Arc<dyn Error + Send + Sync>),
    /// It can't be reached for now. Nothing is stored.
    #[error("{0}")]
    Unavailable(#[source] Arc<dyn Error + Send + Sync>),
    /// It will not do it. Nothing is stored.
    #[error("{0}")]
    Refused(#[source] Arc<dyn Error + Send + Sync>),
    /// It can do nothing any more: it is closed, or damaged. Nothing is stored.
    #[error("{0}")]
    Broken(#[source] Arc<dyn Error + Send + Sync>),
}

impl TargetError {
    /// What the caller can do.
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

/// What is kept of a consumer can't be read.
pub(crate) fn unreadable(error: CodecError) -> TargetError {
    TargetError::Broken(Arc::new(error))
}
