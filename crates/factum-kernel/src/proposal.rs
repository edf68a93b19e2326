//! What was decided, on its way into the log: the one place that makes a batch of it, appends that,
//! and says what its refusal means to whoever decided.

use crate::{
    batch::{AppendBatch, Appended},
    error::{AppendError, StoreError, VersionConflict},
    event::NewEvent,
    id::EventId,
    kernel::Kernel,
    position::Position,
    query::AppendCondition,
    retry::{Attempts, Next},
    stream::StreamId,
    version::{ExpectedVersion, StreamVersion},
};

/// Events in the order in which they were decided, the streams that they were decided on, and what
/// must be so for them to be stored.
pub(crate) struct Proposal<R> {
    batch: AppendBatch,
    /// Those of all events that were added, in order.
    ids: Vec<EventId>,
    /// In the order in which the decision came to them.
    streams: Vec<Proposed>,
    /// What it means that the condition with this number fails.
    failures: Vec<Failure<R>>,
}

struct Proposed {
    id: StreamId,
    /// What it was when it was loaded, or what the caller expects.
    expected: ExpectedVersion,
    is_written: bool,
    standing: Standing,
}

/// What it means that a stream is not as it is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Others were first: load and decide again.
    Loaded,
    /// The caller's expectation does not hold.
    Demanded,
}

enum Failure<R> {
    /// The domain says no.
    Rejected(R),
    /// Others were first: it must be decided again.
    Overtaken,
}

/// What became of a draft, or of any other proposal.
#[derive(Debug)]
#[must_use]
pub enum Committing {
    /// It is stored; a draft is empty, and its state is the stored one.
    Stored(Appended),
    /// Others were first, nothing is stored: drop the draft, load and decide again. The pause is
    /// over.
    Overtaken,
}

/// Why a proposal was not stored, or is not known to be.
pub(crate) enum Unsent<R> {
    /// A guard does not hold.
    Rejected(R),
    /// Others wrote one of its streams, again and again.
    Conflict(VersionConflict),
    /// Others stored what the decision had not seen, again and again.
    Overtaken(Position),
    /// Of the caller's own batch.
    Along(Along),
    /// It may or may not be stored: every repeat failed too.
    Indeterminate(StoreError),
    /// Nothing was stored.
    Store(StoreError),
}

impl<R> From<StoreError> for Unsent<R> {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What does not hold of a batch that rode along.
pub(crate) enum Along {
    /// A stream is not as it expects.
    Conflict(VersionConflict),
    /// An event matches one of its conditions, counted from 0.
    Condition { condition: usize, position: Position },
}

impl<R> Proposal<R> {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        let batch = AppendBatch::new();
        let ids = Vec::new();
        Self { batch, ids, streams: Vec::new(), failures: Vec::new() }
    }

    /// Adds a stream that the decision depends on; the number by which events are added to it. One
    /// that gets none is checked.
    pub(crate) fn stream(&mut self, id: StreamId, expected: ExpectedVersion) -> usize {
        self.add_stream(id, expected, Standing::Loaded)
    }

    /// Adds a stream as [`stream`](Self::stream) does, of which the caller expects something.
    pub(crate) fn demand(&mut self, id: StreamId, expected: ExpectedVersion) -> usize {
        self.add_stream(id, expected, Standing::Demanded)
    }

    fn add_stream(&mut self, id: StreamId, expected: ExpectedVersion, standing: Standing) -> usize {
        self.streams.push(Proposed { id, expected, is_written: false, standing });
        self.streams.len() - 1
    }

    /// Adds events for a stream, behind all that are here.
    pub(crate) fn add(&mut self, stream: usize, events: Vec<NewEvent>) {
        let Proposed { id, expected, is_written, .. } = &mut self.streams[stream];
        if events.is_empty() {
            return;
        }
        self.ids.extend(events.iter().map(|event| event.id));
        // Only the first write of a stream may say what is expected of it.
        let is_first = !std::mem::replace(is_written, true);
        let expected = if is_first { *expected } else { ExpectedVersion::Any };
        self.batch.add_events(id, expected, events);
    }

    /// The streams that are written, as often as the batch has a write of them.
    pub(crate) fn written(&self) -> impl Iterator<Item = &StreamId> {
        self.batch.writes().iter().map(|write| &write.stream)
    }

    /// Whether there are events for a stream.
    pub(crate) fn has_events_of(&self, id: &StreamId) -> bool {
        self.streams.iter().any(|stream| stream.id == *id && stream.is_written)
    }

    /// The events so far, in order.
    pub(crate) fn events(&self) -> impl Iterator<Item = &NewEvent> {
        self.batch.events()
    }

    /// Adds a condition whose failure is a rejection.
    pub(crate) fn guard(&mut self, condition: AppendCondition, rejection: R) {
        self.condition(condition, Failure::Rejected(rejection));
    }

    /// Adds a condition that fails where others have stored what the decision had not seen.
    pub(crate) fn unless_overtaken(&mut self, condition: AppendCondition) {
        self.condition(condition, Failure::Overtaken);
    }

    fn condition(&mut self, condition: AppendCondition, failure: Failure<R>) {
        self.batch.add_condition(condition);
        self.failures.push(failure);
    }

    /// Appends it, with the caller's own batch behind it. Repeats it while its outcome is unknown
    /// or the store is unavailable, and waits out the pauses.
    pub(crate) async fn send(
        mut self,
        along: AppendBatch,
        kernel: &Kernel,
        attempts: &mut Attempts,
    ) -> Result<Committing, Unsent<R>> {
        let mut batch = std::mem::take(&mut self.batch);
        let sent = batch.events().map(|event| event.id);
        assert!(sent.eq(self.ids.iter().copied()), "what was decided is sent, in its order");
        for stream in self.streams.iter().filter(|stream| !stream.is_written) {
            batch = batch.check(stream.id.clone(), stream.expected);
        }
        batch = batch.and(along);
        loop {
            let outcome = kernel.events().append(batch.clone()).await;
            match attempts.after(outcome, |error| self.is_overtaken(error)) {
                Next::Done(appended) => {
                    assert_fits(&batch, &appended);
                    return Ok(Committing::Stored(appended));
                }
                Next::Repeat(pause) => {
                    kernel.pause(pause).await;
                    batch = batch.repeated();
                }
                Next::Reload(pause) => {
                    kernel.pause(pause).await;
                    return Ok(Committing::Overtaken);
                }
                Next::Fail(error) => return Err(self.refusal(error)),
            }
        }
    }

    /// Whether what failed goes away by loading and deciding again. Of the caller's own batch
    /// nothing does: that one stays as it is.
    fn is_overtaken(&self, error: &AppendError) -> bool {
        match error {
            AppendError::Conflict(conflict) => {
                self.own(conflict).is_some_and(|it| it.standing == Standing::Loaded)
            }
            AppendError::ConditionFailed { condition, .. } => {
                matches!(self.failures.get(*condition), Some(Failure::Overtaken))
            }
            _ => false,
        }
    }

    fn own(&self, conflict: &VersionConflict) -> Option<&Proposed> {
        self.streams.iter().find(|stream| stream.id == conflict.stream)
    }

    fn refusal(mut self, error: AppendError) -> Unsent<R> {
        match error {
            AppendError::Conflict(conflict) if self.own(&conflict).is_some() => {
                Unsent::Conflict(conflict)
            }
            AppendError::Conflict(conflict) => Unsent::Along(Along::Conflict(conflict)),
            AppendError::ConditionFailed { condition, position } => {
                let own = self.failures.len();
                if condition >= own {
                    return Unsent::Along(Along::Condition {
                        condition: condition - own,
                        position,
                    });
                }
                match self.failures.swap_remove(condition) {
                    Failure::Rejected(rejection) => Unsent::Rejected(rejection),
                    Failure::Overtaken => Unsent::Overtaken(position),
                }
            }
            AppendError::Indeterminate(error) => Unsent::Indeterminate(error),
            AppendError::Store(error) => Unsent::Store(error),
        }
    }
}

/// Who answers is a store of any make. Its answer says where events stand, and what is decided next
/// is decided on that.
fn assert_fits(batch: &AppendBatch, appended: &Appended) {
    let last = appended.first.plus(batch.event_count().saturating_sub(1) as u64);
    assert_eq!(appended.last, last, "the store answers with a position for each event");
    let writes = batch.writes();
    let versions = &appended.versions;
    assert_eq!(versions.len(), writes.len(), "the store answers with a version for each write");
    for (write, version) in writes.iter().zip(versions) {
        let expected = match write.expected {
            ExpectedVersion::Exact(version) => version,
            ExpectedVersion::NoStream => StreamVersion::ZERO,
            _ => continue,
        };
        let last = expected.plus(write.events.len() as u64);
        assert_eq!(*version, last, "versions go on at the one expected: {}", write.stream);
    }
}
