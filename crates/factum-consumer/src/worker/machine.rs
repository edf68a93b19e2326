//! The state machine of a worker: it decides the next step with a batch, and after a failure or a
//! lost partition. Pure: an event goes in, one next step comes out. The worker around it reads,
//! handles, stores and waits.
//!
//! A worker runs one *life* after another. A life begins by reading the stored progress, and ends
//! when that must be read again.

use factum_kernel::{Position, ReadError, sentence};

use crate::{
    error::HandleError,
    health::{StopCause, StopReason},
    option::{FailurePolicy, Then},
    pace::{DEATHS_MAX, Pace},
    progress::{Attempt, Mark, Progress},
    target::TargetError,
};

/// The number of immediate repeats of a batch that another partition has overtaken.
const OVERTAKEN_MAX: u32 = 8;
/// The number of waits while frozen. An attempt that has not ended by then was given up or has
/// died.
const FROZEN_MAX: u32 = 30;

/// The rules of a worker, from its consumer's options.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) failure: FailurePolicy,
    pub(crate) batch_events_max: usize,
    /// True if several processes may run the consumer.
    pub(crate) is_shared: bool,
}

/// The state of a worker.
#[derive(Debug)]
pub(crate) struct Machine {
    rules: Rules,
    is_paused: bool,
    /// True if this start has stored progress: if another process has stored progress since, that
    /// one has taken over.
    is_owner: bool,
    /// True if the number of partitions was compared with the stored one after this start had
    /// stored progress.
    is_layout_checked: bool,
    /// True if this owner has tried the events that an earlier program could not read.
    has_tried: bool,
    /// `None` before the first life.
    pace: Option<Pace>,
    /// The event that has failed last.
    failing: Option<Failing>,
    /// The number of failures in a row to reach the target or the store.
    unreached: u32,
    /// The number of failures in a row, in this life, to read the log.
    unread: u32,
    /// The number of batches in a row that another partition has overtaken.
    overtaken: u32,
    /// The number of the attempt that freezes this worker, and the number of waits for it.
    frozen: (u64, u32),
}

/// The kind of a failure of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Another attempt may succeed.
    Passing,
    /// Another attempt changes nothing.
    Lasting,
    /// This program can't read the event; another one may.
    Unread,
}

/// An event that has failed, with its error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failing {
    pub(crate) position: Position,
    pub(crate) attempts: u32,
    pub(crate) error: StopCause,
    /// The fault of the last attempt.
    pub(crate) fault: Fault,
    /// True if the pause before the next attempt is still due.
    is_due: bool,
}

/// The events of the current batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The first event to handle.
    pub(crate) first: Position,
    /// The last event to handle.
    pub(crate) last: Position,
    /// The number of events to handle.
    pub(crate) wanted: usize,
    /// The number of all events of the batch, including the skipped ones.
    pub(crate) events: usize,
}

/// The next step with a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Handle the batch; store this note first, if any.
    Handle(Option<Attempt>),
    /// Wait before this attempt, then ask again.
    Wait {
        attempts: u32,
        error: String,
    },
    /// Park the only event to handle, with the later ones of its stream.
    Park(Failing),
    Stop(StopReason),
}

/// The step after a batch that was handled and not stored.
#[derive(Debug)]
pub(crate) enum Unstored {
    /// Handle its events again, perhaps fewer at a time.
    Again,
    /// One of its events has failed.
    Failed,
    Trouble(Trouble),
}

/// The step after an error that no event caused.
#[derive(Debug)]
pub(crate) enum Trouble {
    End(End),
    /// The target or the store can't be reached: wait before this attempt, then begin a new life.
    Outage {
        attempts: u32,
        error: String,
    },
}

/// The reason why a life ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Stop(StopReason),
    /// The stored progress must be read again.
    Reopen,
    /// Another process has moved the checkpoint.
    Fenced,
    /// The partition was revoked, or another process has it.
    Unassigned,
}

/// The step after a life.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Begin another life when the partition is assigned to this process.
    Begin,
    /// Read the assignment again first.
    Refresh,
    Stop(StopReason),
}

/// The step of a worker while another consumer may be taking its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frozen {
    /// No attempt freezes it: continue.
    No,
    Wait,
    /// Make the attempt fail, then continue.
    Forbid,
}

impl Machine {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            is_paused: false,
            is_owner: false,
            is_layout_checked: false,
            has_tried: false,
            pace: None,
            failing: None,
            unreached: 0,
            unread: 0,
            overtaken: 0,
            frozen: (0, 0),
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused
    }

    pub(crate) fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    /// True if events are noted before they are handled.
    pub(crate) fn is_cautious(&self) -> bool {
        self.pace.as_ref().is_some_and(Pace::is_cautious)
    }

    pub(crate) fn is_layout_checked(&self) -> bool {
        self.is_layout_checked
    }

    /// Checks that a life may begin with this stored progress, or without any.
    pub(crate) fn found(&self, progress: Option<&Progress>, me: u64) -> Result<(), End> {
        match progress {
            Some(progress) if self.is_owner && progress.by != me => Err(End::Fenced),
            // It was removed on purpose: let the caller decide on a new start.
            None if self.is_owner => Err(End::Stop(StopReason::Fenced)),
            _ => Ok(()),
        }
    }

    /// The step while attempt `by` freezes the worker; 0 if none does.
    pub(crate) fn frozen(&mut self, by: u64) -> Frozen {
        if by == 0 || !self.rules.is_shared {
            return Frozen::No;
        }
        let looks = if self.frozen.0 == by { self.frozen.1 } else { 0 };
        self.frozen = (by, looks + 1);
        if looks >= FROZEN_MAX { Frozen::Forbid } else { Frozen::Wait }
    }

    /// Begins a life with the stored mark, after a position. Returns the mark to store: the worker
    /// is at work, with the note that another start left.
    pub(crate) fn begin(&mut self, mark: Mark, after: Position) -> Mark {
        // Only a note of another start asks for care: a note of this process's own has not killed
        // it.
        let attempt = if self.pace.is_none() { mark.attempt } else { None };
        let max = self.rules.batch_events_max;
        self.pace.get_or_insert_with(|| Pace::new(max, mark, after));
        self.unread = 0;
        Mark { attempt, ..self.at_work() }
    }

    /// Records that this start has stored its progress, and whether it has compared the number of
    /// partitions since.
    pub(crate) fn note_begun(&mut self, is_layout_checked: bool) {
        self.is_owner = true;
        self.is_layout_checked = is_layout_checked;
    }

    /// True if this owner has tried the events that an earlier program could not read.
    pub(crate) fn has_tried(&self) -> bool {
        self.has_tried
    }

    /// Records that this owner has tried them.
    pub(crate) fn note_tried(&mut self) {
        self.has_tried = true;
    }

    /// The mark of a worker at work, without a note.
    pub(crate) fn at_work(&self) -> Mark {
        Mark { at_work: Some(self.rules.batch_events_max), attempt: None }
    }

    /// The number of events of the next batch, out of the events at these positions; at least one.
    pub(crate) fn take(&self, positions: impl Iterator<Item = Position>) -> usize {
        self.pace.as_ref().expect("a life has begun").take(positions)
    }

    /// Decides the next step with a batch. `parked` is the number of streams that wait, besides
    /// that of the first event.
    pub(crate) fn next(&mut self, batch: &Batch, parked: usize) -> Next {
        if batch.wanted == 1
            && let Some(failing) = self.given_up(batch)
        {
            return self.park(failing, parked);
        }
        let failing = self.failing.as_mut().filter(|it| it.position == batch.first && it.is_due);
        if let Some(failing) = failing {
            failing.is_due = false;
            return Next::Wait { attempts: failing.attempts, error: failing.error.to_string() };
        }
        Next::Handle(self.pace().note(batch.first, batch.last))
    }

    /// The event, if its attempts are used up.
    fn given_up(&mut self, batch: &Batch) -> Option<Failing> {
        let attempts = self.pace().deaths(batch.first, batch.last);
        if attempts >= DEATHS_MAX {
            let error = StopCause::new("the process died while the event was handled");
            let position = batch.first;
            let fault = Fault::Lasting;
            return Some(Failing { position, attempts, error, fault, is_due: false });
        }
        let retries_max = self.rules.failure.retries_max;
        let is_over = |it: &&Failing| it.fault != Fault::Passing || it.attempts > retries_max;
        let failing = self.failing.as_ref().filter(|it| it.position == batch.first);
        failing.filter(is_over).cloned()
    }

    fn park(&self, failing: Failing, parked: usize) -> Next {
        let Failing { position, error, .. } = &failing;
        let position = *position;
        if self.rules.failure.then == Then::Stop {
            return Next::Stop(StopReason::Failed { position, error: error.clone() });
        }
        if parked >= self.rules.failure.parked_max {
            return Next::Stop(StopReason::TooManyParked { position, error: error.clone() });
        }
        Next::Park(failing)
    }

    /// Records that one event of a batch has failed.
    pub(crate) fn failed(&mut self, batch: &Batch, at: Position, error: StopCause, fault: Fault) {
        if batch.wanted > 1 {
            self.pace().single_out(at, at);
        }
        self.fail(at, error, fault);
    }

    /// Records that a batch was not handled because of an outage, for which no event is at fault.
    /// Call it before [`outage`](Self::outage).
    pub(crate) fn blameless(&mut self, batch: &Batch) {
        // One by one, more of the events succeed than all together.
        self.pace().single_out(batch.first, batch.last);
    }

    /// Decides after a batch that was handled and that the target did not store.
    pub(crate) fn unstored(&mut self, batch: &Batch, error: TargetError) -> Unstored {
        let Batch { first, last, wanted, events } = *batch;
        match error {
            TargetError::TooLarge(_) if wanted > 1 => self.pace().halve(events, first, last),
            TargetError::Refused(_) if wanted > 1 => self.pace().single_out(first, last),
            TargetError::Overtaken if self.overtaken < OVERTAKEN_MAX => {
                self.overtaken += 1;
                // A smaller batch is written sooner, before others change the documents that it
                // read.
                self.pace().halve(events, first, last);
            }
            TargetError::TooLarge(error) => {
                self.fail(first, StopCause::of(error), Fault::Lasting);
                return Unstored::Failed;
            }
            TargetError::Refused(error) => {
                self.fail(first, StopCause::of(error), Fault::Passing);
                return Unstored::Failed;
            }
            error => {
                // A batch that takes too long for one transaction may fit two.
                self.pace().halve(events, first, last);
                return Unstored::Trouble(self.target_failed(error));
            }
        }
        Unstored::Again
    }

    /// Records that all events up to a position are done; `handled` of them were handled or parked.
    pub(crate) fn passed(&mut self, handled: usize, through: Position) {
        (self.unreached, self.overtaken) = (0, 0);
        if let Some(pace) = &mut self.pace {
            pace.passed(handled, through);
        }
        self.failing.take_if(|failing| failing.position <= through);
    }

    /// Decides after an error of the target that no event caused.
    pub(crate) fn target_failed(&mut self, error: TargetError) -> Trouble {
        match error {
            // Perhaps a late write of its own has moved the fence. The stored progress shows.
            TargetError::Fenced if self.is_owner => Trouble::End(End::Reopen),
            TargetError::Refused(_) | TargetError::TooLarge(_) | TargetError::Broken(_) => {
                broken(error)
            }
            // A worker that is fenced before it has begun takes over: the process that wrote late
            // has died.
            TargetError::Fenced
            | TargetError::Overtaken
            | TargetError::Unknown(_)
            | TargetError::Unavailable(_) => self.outage(sentence(&error)),
        }
    }

    /// Decides after an error of reading the log.
    pub(crate) fn read_failed(&mut self, error: ReadError) -> Trouble {
        match error {
            ReadError::Store(error) if !error.kind().is_permanent() => {
                self.outage(sentence(&error))
            }
            ReadError::Diverged(error) => {
                Trouble::End(End::Stop(StopReason::Diverged(StopCause::new(error))))
            }
            other => broken(other),
        }
    }

    /// Counts a failure to read the log; the life continues. Returns the number of failures in a
    /// row.
    pub(crate) fn read_delayed(&mut self) -> u32 {
        self.unread += 1;
        self.unread
    }

    /// Records that the log was read.
    pub(crate) fn read_succeeded(&mut self) {
        self.unread = 0;
    }

    /// Records that the target or the store can't be reached.
    pub(crate) fn outage(&mut self, error: String) -> Trouble {
        self.unreached += 1;
        Trouble::Outage { attempts: self.unreached, error }
    }

    /// Decides after the end of a life.
    pub(crate) fn ended(&mut self, end: End) -> After {
        let after = match end {
            End::Stop(reason) => return After::Stop(reason),
            End::Reopen => return After::Begin,
            End::Fenced if !self.rules.is_shared => return After::Stop(StopReason::Fenced),
            End::Unassigned => After::Begin,
            End::Fenced => After::Refresh,
        };
        // Other processes may work on the partition: begin as after a start.
        (self.is_owner, self.is_layout_checked, self.has_tried) = (false, false, false);
        (self.pace, self.failing) = (None, None);
        after
    }

    fn fail(&mut self, position: Position, error: StopCause, fault: Fault) {
        let before = self.failing.take().filter(|failing| failing.position == position);
        let attempts = before.map_or(0, |failing| failing.attempts) + 1;
        let is_due = fault == Fault::Passing && attempts <= self.rules.failure.retries_max;
        self.failing = Some(Failing { position, attempts, error, fault, is_due });
    }

    fn pace(&mut self) -> &mut Pace {
        self.pace.as_mut().expect("a life has begun")
    }
}

fn broken(error: impl Into<HandleError>) -> Trouble {
    Trouble::End(End::broken(error))
}

impl End {
    pub(crate) fn broken(error: impl Into<HandleError>) -> Self {
        Self::Stop(StopReason::Broken(StopCause::new(error)))
    }
}

#[cfg(test)]
mod tests;
