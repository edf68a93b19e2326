//! A decision on its way into the log. Only this module makes a batch of it, appends the batch, and
//! interprets a refusal by the store.

use crate::{
    batch::{AppendBatch, Appended},
    error::{AppendError, StoreError, VersionConflict},
    event::NewEvent,
    id::EventId,
    kernel::Kernel,
    position::Position,
    query::AppendCondition,
    read::{ReadFrom, ReadQuery},
    retry::{Attempts, Next},
    stream::StreamId,
    version::{ExpectedVersion, StreamVersion},
};

/// Events in the order in which they were decided, the streams that they were decided on, and the
/// conditions of the append.
pub(crate) struct Proposal<R> {
    batch: AppendBatch,
    /// The ids of all added events, in order.
    ids: Vec<EventId>,
    /// The streams, in the order in which they were added.
    streams: Vec<Proposed>,
    /// The meaning of a failed condition, by the number of the condition.
    failures: Vec<Failure<R>>,
}

struct Proposed {
    id: StreamId,
    /// The version that was loaded, or that the caller expects.
    expected: ExpectedVersion,
    is_written: bool,
    expectation: Expectation,
}

/// The meaning of a version conflict on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expectation {
    /// Another writer was first: load and decide again.
    Loaded,
    /// The caller's expectation does not hold.
    Demanded,
    /// The expectation of a decision does not hold: decide again if the decision is outdated.
    Ruled,
}

enum Failure<R> {
    /// The domain rejects the command.
    Rejected(R),
    /// Another writer was first: decide again.
    Overtaken,
}

/// The result of appending a draft or another proposal.
#[derive(Debug)]
#[must_use]
pub enum Committing {
    /// The batch is stored. A draft has no events then, and its state is the stored one.
    Stored(Appended),
    /// Another writer was first, and nothing is stored: drop the draft, load and decide again. The
    /// pause before the next attempt is over.
    Overtaken,
}

/// The reason why a proposal was not stored, or why it is not known whether it was.
pub(crate) enum Unsent<R> {
    /// A guard does not hold.
    Rejected(R),
    /// Other writers appended to one of its streams, at each attempt.
    Conflict(VersionConflict),
    /// Other writers appended events that the decision had not read, at each attempt.
    Overtaken(Position),
    /// The caller's own batch failed.
    Along(Along),
    /// The append failed with an unknown outcome, and so did every repeat.
    Indeterminate(StoreError),
    /// Nothing was stored.
    Store(StoreError),
}

impl<R> From<StoreError> for Unsent<R> {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The failure of a caller's batch.
pub(crate) enum Along {
    /// A stream does not have the version that the batch expects.
    Conflict(VersionConflict),
    /// An event matches one of its conditions, counted from 0.
    Condition { condition: usize, position: Position },
}

impl<R> Proposal<R> {
    /// An empty proposal.
    pub(crate) fn new() -> Self {
        let batch = AppendBatch::new();
        let ids = Vec::new();
        Self { batch, ids, streams: Vec::new(), failures: Vec::new() }
    }

    /// Adds a stream that the decision depends on. Returns the number by which events are added to
    /// it. A stream without events is only checked.
    pub(crate) fn stream(&mut self, id: StreamId, expected: ExpectedVersion) -> usize {
        self.add_stream(id, expected, Expectation::Loaded)
    }

    /// Adds a stream like [`stream`](Self::stream), with a version that the caller expects.
    pub(crate) fn demand(&mut self, id: StreamId, expected: ExpectedVersion) -> usize {
        self.add_stream(id, expected, Expectation::Demanded)
    }

    /// Adds a stream like [`stream`](Self::stream), with a version that the decision expects.
    pub(crate) fn rule(&mut self, id: StreamId, expected: ExpectedVersion) -> usize {
        self.add_stream(id, expected, Expectation::Ruled)
    }

    /// The stream with this number.
    pub(crate) fn stream_of(&self, stream: usize) -> &StreamId {
        &self.streams[stream].id
    }

    /// The expected version of the stream with this number.
    pub(crate) fn expected_of(&self, stream: usize) -> ExpectedVersion {
        self.streams[stream].expected
    }

    /// Notes the version at which a step has read a stream that has no events yet. Returns what an
    /// earlier decision expects of the stream: the version takes its place.
    pub(crate) fn read_ruled(
        &mut self,
        stream: usize,
        version: StreamVersion,
    ) -> Option<ExpectedVersion> {
        let Proposed { expected, is_written, expectation, .. } = &mut self.streams[stream];
        assert!(!*is_written, "a write has taken over the expectation");
        if *expectation != Expectation::Ruled {
            return None;
        }
        *expectation = Expectation::Loaded;
        Some(std::mem::replace(expected, version.into()))
    }

    fn add_stream(
        &mut self,
        id: StreamId,
        expected: ExpectedVersion,
        expectation: Expectation,
    ) -> usize {
        self.streams.push(Proposed { id, expected, is_written: false, expectation });
        self.streams.len() - 1
    }

    /// Adds events for a stream, after all present ones.
    pub(crate) fn add(&mut self, stream: usize, events: Vec<NewEvent>) {
        let Proposed { id, expected, is_written, .. } = &mut self.streams[stream];
        if events.is_empty() {
            return;
        }
        self.ids.extend(events.iter().map(|event| event.id));
        // Only the first write of a stream has an expected version.
        let is_first = !std::mem::replace(is_written, true);
        let expected = if is_first { *expected } else { ExpectedVersion::Any };
        self.batch.add_events(id, expected, events);
    }

    /// The written streams, one for each write of the batch.
    pub(crate) fn written(&self) -> impl Iterator<Item = &StreamId> {
        self.batch.writes().iter().map(|write| &write.stream)
    }

    /// True if the proposal has events for this stream.
    pub(crate) fn has_events_of(&self, id: &StreamId) -> bool {
        self.streams.iter().any(|stream| stream.id == *id && stream.is_written)
    }

    /// The events so far, in order.
    pub(crate) fn events(&self) -> impl Iterator<Item = &NewEvent> {
        self.batch.events()
    }

    /// The events so far with their streams, in order.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (&StreamId, &NewEvent)> {
        let writes = self.batch.writes().iter();
        writes.flat_map(|write| write.events.iter().map(|event| (&write.stream, event)))
    }

    /// The number of events so far.
    pub(crate) fn event_count(&self) -> usize {
        self.ids.len()
    }

    /// Changes the first event.
    pub(crate) fn sign(&mut self, sign: impl FnOnce(&mut NewEvent)) {
        if let Some(first) = self.batch.first_event_mut() {
            sign(first);
        }
    }

    /// Adds a condition whose failure is a rejection.
    pub(crate) fn guard(&mut self, condition: AppendCondition, rejection: R) {
        self.condition(condition, Failure::Rejected(rejection));
    }

    /// Adds a condition that fails if other writers stored events that the decision had not read.
    pub(crate) fn unless_overtaken(&mut self, condition: AppendCondition) {
        self.condition(condition, Failure::Overtaken);
    }

    fn condition(&mut self, condition: AppendCondition, failure: Failure<R>) {
        self.batch.add_condition(condition);
        self.failures.push(failure);
    }

    /// Appends the proposal, followed by the caller's own batch. Repeats the append while its
    /// outcome is unknown or the store is unavailable, and waits for the pauses.
    pub(crate) async fn send(
        mut self,
        along: AppendBatch,
        kernel: &Kernel,
        attempts: &mut Attempts,
    ) -> Result<Committing, Unsent<R>> {
        let mut batch = std::mem::take(&mut self.batch);
        let sent = batch.events().map(|event| event.id);
        assert!(sent.eq(self.ids.iter().copied()), "the decided events are sent in their order");
        for stream in self.streams.iter().filter(|stream| !stream.is_written) {
            batch = batch.check(stream.id.clone(), stream.expected);
        }
        batch = batch.and(along);
        loop {
            let mut outcome = kernel.events().append(batch.clone()).await;
            if let Err(AppendError::Conflict(conflict)) = &outcome
                && self.own(conflict).is_some_and(|it| it.expectation == Expectation::Ruled)
                && let Some(moved) = self.moved(batch.conditions(), kernel, attempts).await?
            {
                outcome = Err(moved);
            }
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

    /// Returns whether all that was read is still so, for an answer without an append: a rejection,
    /// or no events. An append compares several reads with one moment of the log; without one they
    /// may be of different moments. If another writer was first, waits for the pause before the
    /// next attempt. A single read needs no comparison.
    ///
    /// # Errors
    /// Those of the store; the conflict, after the last attempt.
    pub(crate) async fn holds(
        &self,
        kernel: &Kernel,
        attempts: &mut Attempts,
    ) -> Result<bool, Unsent<R>> {
        if self.streams.len() + self.failures.len() < 2 {
            return Ok(true);
        }
        let conditions = self.batch.conditions();
        let Some(moved) = self.moved(conditions, kernel, attempts).await? else {
            return Ok(true);
        };
        match attempts.after(Err(moved), |error| self.is_overtaken(error)) {
            Next::Reload(pause) => {
                kernel.pause(pause).await;
                Ok(false)
            }
            Next::Fail(AppendError::Conflict(conflict)) => Err(Unsent::Conflict(conflict)),
            Next::Fail(AppendError::ConditionFailed { position, .. }) => {
                Err(Unsent::Overtaken(position))
            }
            _ => unreachable!("a conflict is decided again, or is the answer"),
        }
    }

    /// The error with which the store would refuse an append with these conditions, if another
    /// writer was first. What a decision expects comes last: a decision that is outdated is made
    /// again, and may expect something else.
    async fn moved(
        &self,
        conditions: &[AppendCondition],
        kernel: &Kernel,
        attempts: &mut Attempts,
    ) -> Result<Option<AppendError>, StoreError> {
        let is_ruled = |it: &&Proposed| it.expectation == Expectation::Ruled;
        let (ruled, read): (Vec<_>, Vec<_>) = self.streams.iter().partition(is_ruled);
        if let Some(conflict) = first_conflict(&read, kernel, attempts).await? {
            return Ok(Some(conflict.into()));
        }
        let conditions = conditions.iter().zip(&self.failures).enumerate();
        for (condition, (wanted, failure)) in conditions {
            if let Failure::Overtaken = failure
                && let Some(position) = first_match(wanted, kernel, attempts).await?
            {
                return Ok(Some(AppendError::ConditionFailed { condition, position }));
            }
        }
        Ok(first_conflict(&ruled, kernel, attempts).await?.map(AppendError::from))
    }

    /// True if loading and deciding again can help. It can't help for a failure of the caller's own
    /// batch, which does not change.
    fn is_overtaken(&self, error: &AppendError) -> bool {
        match error {
            AppendError::Conflict(conflict) => {
                self.own(conflict).is_some_and(|it| it.expectation == Expectation::Loaded)
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

/// Checks the store's answer. Any implementation of a store may be in use, and the next decision is
/// based on its answer.
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
        assert_eq!(*version, last, "versions continue from the expected one: {}", write.stream);
    }
}

/// The first of these streams that does not match what is expected of it.
async fn first_conflict(
    streams: &[&Proposed],
    kernel: &Kernel,
    attempts: &mut Attempts,
) -> Result<Option<VersionConflict>, StoreError> {
    for Proposed { id, expected, .. } in streams {
        let query = ReadQuery::stream(id.clone()).with_events_max(1);
        let read = || kernel.events().read(query.clone());
        let page = kernel.patiently(attempts, |error| Some(error), read).await?;
        let bounds = page.bounds.unwrap_or_default();
        if let Some(conflict) = bounds.conflict(id, *expected) {
            return Ok(Some(conflict));
        }
    }
    Ok(None)
}

/// The first event after a condition's position that its query matches.
async fn first_match(
    condition: &AppendCondition,
    kernel: &Kernel,
    attempts: &mut Attempts,
) -> Result<Option<Position>, StoreError> {
    let query = ReadQuery::matching(condition.fail_if_events_match.clone());
    let mut next = Some(query.from(ReadFrom::Position(condition.after.next())).with_events_max(1));
    while let Some(query) = next {
        let read = || kernel.events().read(query.clone());
        let page = kernel.patiently(attempts, |error| Some(error), read).await?;
        if let Some(event) = page.events.first() {
            return Ok(Some(event.position()));
        }
        next = query.next(&page);
    }
    Ok(None)
}
