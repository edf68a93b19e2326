//! What a worker does next: with the events at hand, and after a failure, a panic or a lost
//! partition. Pure: what happened goes in, one next step comes out; whoever drives it reads,
//! handles, stores and waits.
//!
//! A worker lives one *life* after another. A life begins with what is stored, and ends when that
//! has to be looked at again.

use factum_kernel::{Position, ReadError};

use crate::{
    health::StopReason,
    option::{FailurePolicy, Then},
    pace::{DEATHS_MAX, Pace},
    progress::{Attempt, Mark, Progress},
    target::TargetError,
};

/// After so many panics in a row it stops.
pub const PANICS_MAX: u32 = 10;
/// What is kept of an error's text.
pub const ERROR_BYTES_MAX: usize = 4 << 10;
/// So often a batch is done again at once because another partition was in its way.
const OVERTAKEN_MAX: u32 = 8;
/// So often it rests while it is held: whoever holds it gives up long before, or has died.
const HELD_MAX: u32 = 30;

/// What a worker goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) failure: FailurePolicy,
    pub(crate) batch_events_max: usize,
    /// Several processes run the consumer.
    pub(crate) is_shared: bool,
}

/// What a worker knows of how it fares.
#[derive(Debug)]
pub(crate) struct Machine {
    rules: Rules,
    is_paused: bool,
    /// It has stored something: whoever has stored since has taken over.
    is_owner: bool,
    /// The number of partitions was compared with what is stored, after it had stored something.
    is_layout_checked: bool,
    /// None before the first start.
    pace: Option<Pace>,
    /// The event that fails.
    failing: Option<Failing>,
    /// How often in a row its target or store could not be reached.
    unreached: u32,
    /// How often in a row, in this life, the log could not be read.
    unread: u32,
    /// How often in a row another partition was in the way of a batch.
    overtaken: u32,
    /// How often in a row the loop itself, a target or a store has panicked.
    panics: u32,
    /// Which try to take its place holds it, and how often that was found.
    held: (u64, u32),
}

/// An event that fails, and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failing {
    pub(crate) position: Position,
    pub(crate) attempts: u32,
    pub(crate) error: String,
    /// It is not tried again.
    is_final: bool,
    /// The pause before the next attempt is still to come.
    is_due: bool,
}

/// The events at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The first and the last that are to be handled, and their number.
    pub(crate) first: Position,
    pub(crate) last: Position,
    pub(crate) wanted: usize,
    /// The number of all, those that are passed included.
    pub(crate) events: usize,
}

/// What is done with the events at hand.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// They are handled. This is noted first, if anything.
    Handle(Option<Attempt>),
    /// They are looked at again after a pause, the one before this attempt.
    Rest {
        attempts: u32,
        error: String,
    },
    /// The only one is set aside, with the later ones of its stream.
    Park(Failing),
    Stop(StopReason),
}

/// What follows on a batch that was handled and not stored.
#[derive(Debug)]
pub(crate) enum Unstored {
    /// Its events are handled again, perhaps fewer at a time.
    Again,
    /// One of them has failed.
    Failed,
    Trouble(Trouble),
}

/// What follows on an error that is no event's fault.
#[derive(Debug)]
pub(crate) enum Trouble {
    End(End),
    /// Something can't be reached: after a pause, the one before this attempt, a new life begins.
    Away {
        attempts: u32,
        error: String,
    },
}

/// Why a life ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Stop(StopReason),
    /// What is stored is to be looked at again.
    Reopen,
    /// Somebody else has moved the checkpoint.
    Overtaken,
    /// Another process is to have the partition, or has it.
    Unseated,
}

/// What follows on a life.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Another life, as soon as the partition is this process's.
    Begin,
    /// First it is looked whose the partition is.
    LookAgain,
    Stop(StopReason),
}

/// What is done where another consumer is about to take its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// Nothing holds it.
    No,
    Rest,
    /// The try has to fail before it goes on.
    Forbid,
}

impl Machine {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            is_paused: false,
            is_owner: false,
            is_layout_checked: false,
            pace: None,
            failing: None,
            unreached: 0,
            unread: 0,
            overtaken: 0,
            panics: 0,
            held: (0, 0),
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused
    }

    pub(crate) fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    /// Whether what it is about to handle is noted first.
    pub(crate) fn is_cautious(&self) -> bool {
        self.pace.as_ref().is_some_and(Pace::is_cautious)
    }

    pub(crate) fn is_layout_checked(&self) -> bool {
        self.is_layout_checked
    }

    /// Whether it may begin with this progress, which is stored, or with none.
    pub(crate) fn found(&self, progress: Option<&Progress>, me: u64) -> Result<(), End> {
        match progress {
            Some(progress) if self.is_owner && progress.by != me => Err(End::Overtaken),
            // Somebody has removed it, and will start it again when they like.
            None if self.is_owner => Err(End::Stop(StopReason::Fenced)),
            _ => Ok(()),
        }
    }

    /// What is done where a try to take its place holds it, by its number; 0: none does.
    pub(crate) fn held(&mut self, by: u64) -> Held {
        if by == 0 || !self.rules.is_shared {
            return Held::No;
        }
        let looks = if self.held.0 == by { self.held.1 } else { 0 };
        self.held = (by, looks + 1);
        if looks >= HELD_MAX { Held::Forbid } else { Held::Rest }
    }

    /// A life begins with this mark, after a position. What is stored as its mark: that it is at
    /// work, and what another life of the process left behind.
    pub(crate) fn begin(&mut self, mark: Mark, after: Position) -> Mark {
        // Only what another life of the process left behind asks for care: what this one has noted
        // itself has not killed it.
        let attempt = if self.pace.is_none() { mark.attempt } else { None };
        let max = self.rules.batch_events_max;
        self.pace.get_or_insert_with(|| Pace::new(max, mark, after));
        self.unread = 0;
        Mark { attempt, ..self.at_work() }
    }

    /// It has stored that it is at work, and compared the number of partitions since.
    pub(crate) fn has_begun(&mut self, is_layout_checked: bool) {
        self.is_owner = true;
        self.is_layout_checked = is_layout_checked;
    }

    /// The mark of one that is at work, with nothing noted.
    pub(crate) fn at_work(&self) -> Mark {
        Mark { at_work: Some(self.rules.batch_events_max), attempt: None }
    }

    /// How many of the events at these positions to take; at least one.
    pub(crate) fn take(&self, positions: impl Iterator<Item = Position>) -> usize {
        self.pace.as_ref().expect("a life has begun").take(positions)
    }

    /// What is done with the events at hand, while so many streams are parked.
    pub(crate) fn next(&mut self, batch: &Batch, parked: usize) -> Next {
        if batch.wanted == 1
            && let Some(failing) = self.given_up(batch)
        {
            return self.set_aside(failing, parked);
        }
        let failing = self.failing.as_mut().filter(|it| it.position == batch.first && it.is_due);
        if let Some(failing) = failing {
            failing.is_due = false;
            return Next::Rest { attempts: failing.attempts, error: failing.error.clone() };
        }
        Next::Handle(self.pace().note(batch.first, batch.last))
    }

    /// The event, where it has had its attempts.
    fn given_up(&mut self, batch: &Batch) -> Option<Failing> {
        let attempts = self.pace().deaths(batch.first, batch.last);
        if attempts >= DEATHS_MAX {
            let error = "the process died while it was handled".into();
            let position = batch.first;
            return Some(Failing { position, attempts, error, is_final: true, is_due: false });
        }
        let is_over = |it: &&Failing| it.is_final || it.attempts > self.rules.failure.retries_max;
        let failing = self.failing.as_ref().filter(|it| it.position == batch.first);
        failing.filter(is_over).cloned()
    }

    fn set_aside(&self, failing: Failing, parked: usize) -> Next {
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

    /// One of these events has failed.
    pub(crate) fn failed(&mut self, batch: &Batch, at: Position, error: String, is_final: bool) {
        if batch.wanted > 1 {
            self.pace().single_out(at, at);
        }
        self.fail(at, error, is_final);
    }

    /// They could not be handled, and none of them is to blame. To be said before
    /// [`away`](Self::away).
    pub(crate) fn blameless(&mut self, batch: &Batch) {
        // One by one more of them come through than all at once.
        self.pace().single_out(batch.first, batch.last);
    }

    /// They were handled, and the target did not store that.
    pub(crate) fn unstored(&mut self, batch: &Batch, error: TargetError) -> Unstored {
        let Batch { first, last, wanted, events } = *batch;
        match error {
            TargetError::TooLarge(_) if wanted > 1 => self.pace().halve(events, first, last),
            TargetError::Refused(_) if wanted > 1 => self.pace().single_out(first, last),
            TargetError::Overtaken if self.overtaken < OVERTAKEN_MAX => {
                self.overtaken += 1;
                // A smaller one is sooner written than others change what it has read.
                self.pace().halve(events, first, last);
            }
            TargetError::TooLarge(error) => {
                self.fail(first, error.to_string(), true);
                return Unstored::Failed;
            }
            TargetError::Refused(error) => {
                self.fail(first, error.to_string(), false);
                return Unstored::Failed;
            }
            error => {
                // What takes too long in one transaction may fit two.
                self.pace().halve(events, first, last);
                return Unstored::Trouble(self.target_failed(error));
            }
        }
        Unstored::Again
    }

    /// Everything through a position is done with; so many events of it were handled or parked.
    pub(crate) fn passed(&mut self, handled: usize, through: Position) {
        (self.unreached, self.overtaken, self.panics) = (0, 0, 0);
        if let Some(pace) = &mut self.pace {
            pace.passed(handled, through);
        }
        self.failing.take_if(|failing| failing.position <= through);
    }

    /// The target failed, which is no event's fault.
    pub(crate) fn target_failed(&mut self, error: TargetError) -> Trouble {
        match error {
            // By a write of its own, perhaps, that came late. What is stored tells.
            TargetError::Fenced if self.is_owner => Trouble::End(End::Reopen),
            TargetError::Refused(_) | TargetError::TooLarge(_) | TargetError::Broken(_) => {
                broken(error)
            }
            // Fenced before it has begun, it takes over: from a late write of a process that died.
            TargetError::Fenced
            | TargetError::Overtaken
            | TargetError::Unknown(_)
            | TargetError::Unavailable(_) => self.away(error.to_string()),
        }
    }

    /// The log can't be read.
    pub(crate) fn read_failed(&mut self, error: ReadError) -> Trouble {
        match error {
            ReadError::Store(error) if !error.kind().is_permanent() => self.away(error.to_string()),
            ReadError::Diverged(error) => {
                Trouble::End(End::Stop(StopReason::Diverged(error.to_string())))
            }
            other => broken(other),
        }
    }

    /// The log can't be read on for now; the life goes on. How often in a row it could not.
    pub(crate) fn unread(&mut self) -> u32 {
        self.unread += 1;
        self.unread
    }

    /// The log was read.
    pub(crate) fn is_read(&mut self) {
        self.unread = 0;
    }

    /// Something can't be reached.
    pub(crate) fn away(&mut self, error: String) -> Trouble {
        self.unreached += 1;
        Trouble::Away { attempts: self.unreached, error }
    }

    /// The loop itself, the target or the store has panicked. What is stored is looked at again, as
    /// after any error whose outcome is not known.
    pub(crate) fn panicked(&mut self, told: &str) -> Trouble {
        self.panics += 1;
        let told = format!("the target or the store panicked: {told}");
        if self.panics > PANICS_MAX { broken(told) } else { self.away(told) }
    }

    /// A life has ended.
    pub(crate) fn ended(&mut self, end: End) -> After {
        let after = match end {
            End::Stop(reason) => return After::Stop(reason),
            End::Reopen => return After::Begin,
            End::Overtaken if !self.rules.is_shared => return After::Stop(StopReason::Fenced),
            End::Unseated => After::Begin,
            End::Overtaken => After::LookAgain,
        };
        // Others work on it, perhaps: it begins as after a start.
        (self.is_owner, self.is_layout_checked) = (false, false);
        (self.pace, self.failing) = (None, None);
        after
    }

    fn fail(&mut self, position: Position, mut error: String, is_final: bool) {
        error.truncate(error.floor_char_boundary(ERROR_BYTES_MAX));
        let before = self.failing.take().filter(|failing| failing.position == position);
        let attempts = before.map_or(0, |failing| failing.attempts) + 1;
        let is_due = !is_final && attempts <= self.rules.failure.retries_max;
        self.failing = Some(Failing { position, attempts, error, is_final, is_due });
    }

    fn pace(&mut self) -> &mut Pace {
        self.pace.as_mut().expect("a life has begun")
    }
}

fn broken(error: impl std::fmt::Display) -> Trouble {
    Trouble::End(End::broken(error))
}

impl End {
    pub(crate) fn broken(error: impl std::fmt::Display) -> Self {
        Self::Stop(StopReason::Broken(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
