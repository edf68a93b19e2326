//! The answers that callers of running aggregates got, compared with the log at the end.

mod check;
mod contradiction;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use factum_kernel::{
    Aggregate, EventStore, Position, StoreError, StoreErrorKind, StreamId, StreamVersion,
};

pub use contradiction::Contradiction;

/// Records the answers that callers got, from any number of tasks, and then checks every answer
/// against the log. Events that were answered as stored must be in the log once, at their version,
/// and decided on the right state. An answer without events (a rejection, a no-op, a state) must
/// have been right at some moment between the call and the answer.
///
/// The beginning and the end of that time are read from the store itself, not through a wrapper
/// that fails or delays. An answer that is older than the call is stale, and one that is newer than
/// the log is too early. Use a [`History`](crate::History) beside it to check that no event was
/// lost or doubled.
///
/// The check decides each command again, so the rules must depend only on state and command.
/// Streams must keep their history.
///
/// ```
/// use std::{error::Error, sync::Arc};
/// use factum_kernel::{EventStore, Repository};
/// use factum_testing::{Answer, Answers, bank::Account};
///
/// type Done = Result<(), Box<dyn Error>>;
///
/// async fn look(store: Arc<dyn EventStore>, accounts: Repository<Account>) -> Done {
///     let answers = Answers::<Account>::new(store);
///     let call = answers.call("ada").await?;
///     let ada = accounts.load("ada").await?;
///     answers.answered(call, Answer::Seen { version: ada.version, state: ada.state }).await?;
///     assert_eq!(answers.check().await?.seen, 1);
///     Ok(())
/// }
/// ```
pub struct Answers<A: Aggregate> {
    store: Arc<dyn EventStore>,
    noted: Mutex<Vec<Noted<A>>>,
}

/// An answer that a caller got.
#[derive(Debug)]
pub enum Answer<A: Aggregate> {
    /// The command was executed.
    Done {
        /// The command.
        command: A::Command,
        /// The version after the command, as answered.
        version: StreamVersion,
        /// The position of its last event, as answered.
        position: Option<Position>,
        /// Its events; empty if there was nothing to do.
        events: Vec<A::Event>,
        /// The state after the command, as answered.
        state: A,
    },
    /// The domain rejected the command.
    Rejected {
        /// The command.
        command: A::Command,
        /// The rejection.
        rejection: A::Rejection,
    },
    /// The caller got the state.
    Seen {
        /// The version of the state.
        version: StreamVersion,
        /// The state.
        state: A,
    },
}

/// A call in progress; see [`Answers::call`]. A call that is dropped had no answer, and is not
/// checked.
#[derive(Debug)]
#[must_use = "say what was answered"]
pub struct Call {
    stream: StreamId,
    from: StreamVersion,
}

/// The counts of checked answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AnswerSummary {
    /// The number of commands that stored events.
    pub stored: usize,
    /// The number of their events.
    pub events: u64,
    /// The number of commands that had nothing to do.
    pub nothing: usize,
    /// The number of commands that were rejected.
    pub rejected: usize,
    /// The number of rejections by a guard; the check does not test whether the guard matched.
    pub guarded: usize,
    /// The number of states that were returned.
    pub seen: usize,
    /// The number of events in the same streams that no answer reports: those of other writers, or
    /// of callers without an answer.
    pub untold: u64,
}

struct Noted<A: Aggregate> {
    stream: StreamId,
    /// The stream's version before the call.
    from: StreamVersion,
    /// The stream's version when the answer was there.
    to: StreamVersion,
    answer: Answer<A>,
}

// A derived `Debug` would require `A: Debug`.
impl<A: Aggregate> fmt::Debug for Answers<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("noted", &self.noted().len()).finish_non_exhaustive()
    }
}

impl<A: Aggregate> Answers<A> {
    /// Answers of callers on this store. Pass the store itself, not a wrapper that fails or delays.
    pub fn new(store: Arc<dyn EventStore>) -> Self {
        Self { store, noted: Mutex::default() }
    }

    /// Records that a caller is about to ask the aggregate with this key.
    ///
    /// # Errors
    /// The store can't be read, or the key is not valid.
    pub async fn call(&self, key: &str) -> Result<Call, StoreError> {
        let stream = StreamId::new(A::CATEGORY, key)
            .map_err(|error| StoreError::new(StoreErrorKind::Invalid, error.to_string()))?;
        let from = self.store.stream_info(&stream).await?.bounds.version;
        Ok(Call { stream, from })
    }

    /// Records an answer.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn answered(&self, call: Call, answer: Answer<A>) -> Result<(), StoreError> {
        let Call { stream, from } = call;
        let to = self.store.stream_info(&stream).await?.bounds.version;
        self.noted().push(Noted { stream, from, to, answer });
        Ok(())
    }

    fn noted(&self) -> MutexGuard<'_, Vec<Noted<A>>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
