//! What callers of running aggregates were answered, compared in the end with the log.

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

/// Notes what callers were answered, from any number of tasks, and then finds in the log whether
/// every answer was right: what was stored is there once, at its version, and was decided on what
/// was right before it; what stored nothing (a rejection, a no-op, a state) was so at some moment
/// between the call and the answer.
///
/// Both ends of that time are read from the store itself, not through what fails or delays: an
/// answer that is older than the call is stale, and one that is newer than the log was given too
/// early. What events were stored, and whether any was lost or doubled, a
/// [`History`](crate::History) checks beside it.
///
/// Rules are decided again: they must depend on nothing but state and command. Streams must keep
/// their history.
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

/// What a caller was answered.
#[derive(Debug)]
pub enum Answer<A: Aggregate> {
    /// The command was executed.
    Done {
        /// What was asked.
        command: A::Command,
        /// The version behind it, as it was told.
        version: StreamVersion,
        /// The position of its last event, as it was told.
        position: Option<Position>,
        /// Its events; none: there was nothing to do.
        events: Vec<A::Event>,
        /// The state behind it, as it was told.
        state: A,
    },
    /// The domain said no.
    Rejected {
        /// What was asked.
        command: A::Command,
        /// What it said.
        rejection: A::Rejection,
    },
    /// The state was told.
    Seen {
        /// Where it was at.
        version: StreamVersion,
        /// What it was.
        state: A,
    },
}

/// A call on its way; see [`Answers::call`]. One that is dropped learned nothing, and nothing is
/// checked of it.
#[derive(Debug)]
#[must_use = "say what was answered"]
pub struct Call {
    stream: StreamId,
    from: StreamVersion,
}

/// What the checked answers amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct AnswerSummary {
    /// Commands that stored events.
    pub stored: usize,
    /// Their events.
    pub events: u64,
    /// Commands that had nothing to do.
    pub nothing: usize,
    /// Commands that were rejected.
    pub rejected: usize,
    /// Of those, how many by a guard: whether it matched is not looked at.
    pub guarded: usize,
    /// States that were seen.
    pub seen: usize,
    /// Events of the same streams that no answer tells of: other writers', or those of callers
    /// who learned nothing.
    pub untold: u64,
}

struct Noted<A: Aggregate> {
    stream: StreamId,
    /// What was stored before the call.
    from: StreamVersion,
    /// What was stored when the answer was there.
    to: StreamVersion,
    answer: Answer<A>,
}

// A derived `Debug` would ask for `A: Debug`.
impl<A: Aggregate> fmt::Debug for Answers<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("noted", &self.noted().len()).finish_non_exhaustive()
    }
}

impl<A: Aggregate> Answers<A> {
    /// Answers of callers on this store. Give the store itself, beneath whatever fails or delays.
    pub fn new(store: Arc<dyn EventStore>) -> Self {
        Self { store, noted: Mutex::default() }
    }

    /// Notes that the aggregate with this key is about to be asked.
    ///
    /// # Errors
    /// The store can't be read, or no stream has such a key.
    pub async fn call(&self, key: &str) -> Result<Call, StoreError> {
        let stream = StreamId::new(A::CATEGORY, key)
            .map_err(|error| StoreError::new(StoreErrorKind::Invalid, error.to_string()))?;
        let from = self.store.stream_info(&stream).await?.bounds.version;
        Ok(Call { stream, from })
    }

    /// Notes what was answered.
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
