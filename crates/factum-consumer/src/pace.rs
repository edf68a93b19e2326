//! The size of a consumer's batches, and whether it stores a note before it handles them. Pure.
//!
//! Normally a batch is as large as the options allow. After a failure the consumer handles the
//! events of the batch one by one, to find the event at fault. After an unclean stop it is
//! *cautious*: it notes which events it is about to handle, so that an event which kills the
//! process is found in the end.

use factum_kernel::Position;

use crate::progress::{Attempt, Mark};

/// The number of deaths of the process during one event after which the event is given up.
pub const DEATHS_MAX: u32 = 3;

/// The size of a consumer's batches, and its care after an unclean stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    batch_max: usize,
    narrow: Option<Narrow>,
    care: Care,
}

/// A smaller batch size between two positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Narrow {
    max: usize,
    first: Position,
    last: Position,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Care {
    None,
    /// One by one, until this number of events was handled. Skipped events don't count, because the
    /// progress is not stored after each of them.
    Counting(usize),
    /// One by one within the noted events.
    Within(Attempt),
    /// Batches with notes up to this position: it is not known at which event the process died.
    Noting(Position),
}

impl Pace {
    /// The pace of a consumer that stores progress with each batch, when it starts after a
    /// position.
    pub fn new(batch_max: usize, mark: Mark, after: Position) -> Self {
        Self::with(batch_max, mark, after, Care::Counting)
    }

    /// The pace of a consumer that stores progress only now and then. `head` is the log's end at
    /// the start.
    pub fn of_snapshots(batch_max: usize, mark: Mark, after: Position, head: Position) -> Self {
        Self::with(batch_max, mark, after, |_| Care::Noting(head))
    }

    fn with(
        batch_max: usize,
        mark: Mark,
        after: Position,
        unclean: impl FnOnce(usize) -> Care,
    ) -> Self {
        // Events before the progress did not kill the process.
        let attempt = mark.attempt.filter(|attempt| attempt.last > after);
        let care = match (attempt, mark.at_work) {
            (Some(attempt), _) => Care::Within(attempt),
            (None, None) => Care::None,
            (None, Some(count)) => unclean(count),
        };
        Self { batch_max, narrow: None, care }
    }

    /// True if events are noted before they are handled.
    pub fn is_cautious(&self) -> bool {
        self.care != Care::None
    }

    /// The number of events of the next batch, out of the events at these positions; at least one.
    pub fn take(&self, positions: impl Iterator<Item = Position>) -> usize {
        let mut positions = positions.peekable();
        let first = positions.peek().copied().unwrap_or(Position::ZERO);
        let mut max = self.batch_max;
        let mut before = Position::new(u64::MAX);
        if let Some(narrow) = self.narrow {
            match first < narrow.first {
                true => before = narrow.first,
                false if first <= narrow.last => max = max.min(narrow.max),
                false => {}
            }
        }
        match &self.care {
            Care::Counting(_) => max = 1,
            // No later position is before the first noted event, so the noted events are taken one
            // by one.
            Care::Within(noted) => before = before.min(noted.first),
            Care::None | Care::Noting(_) => {}
        }
        positions.take(max).take_while(|at| *at < before).count().max(1)
    }

    /// The note to store before these events are handled, if any.
    pub fn note(&self, first: Position, last: Position) -> Option<Attempt> {
        let is_noted = match &self.care {
            Care::None => false,
            Care::Counting(_) | Care::Noting(_) => true,
            Care::Within(noted) => first >= noted.first,
        };
        is_noted.then(|| Attempt { first, last, count: self.deaths(first, last) + 1 })
    }

    /// True if these events are given up: the process died too often while exactly they were
    /// handled.
    pub fn is_deadly(&self, first: Position, last: Position) -> bool {
        self.deaths(first, last) >= DEATHS_MAX
    }

    /// The number of deaths of the process while exactly these events were handled.
    pub(crate) fn deaths(&self, first: Position, last: Position) -> u32 {
        match &self.care {
            Care::Within(noted) if (noted.first, noted.last) == (first, last) => noted.count,
            _ => 0,
        }
    }

    /// Halves the batch size between two positions, because `count` events can't be handled
    /// together.
    pub fn halve(&mut self, count: usize, first: Position, last: Position) {
        self.narrow = Some(Narrow { max: (count / 2).max(1), first, last });
    }

    /// Takes the events between two positions one by one: one of them can't be handled.
    pub fn single_out(&mut self, first: Position, last: Position) {
        self.narrow = Some(Narrow { max: 1, first, last });
    }

    /// Records that all events up to a position are done; `count` of them were handled or parked.
    pub fn passed(&mut self, count: usize, last: Position) {
        self.narrow = self.narrow.filter(|narrow| last < narrow.last);
        let is_over = match &mut self.care {
            Care::None => return,
            Care::Counting(left) => {
                *left = left.saturating_sub(count);
                *left == 0
            }
            Care::Within(noted) => last >= noted.last,
            Care::Noting(until) => last >= *until,
        };
        if is_over {
            self.care = Care::None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: u64) -> Position {
        Position::new(position)
    }

    fn from(first: u64) -> impl Iterator<Item = Position> {
        (first..).take(5_000).map(Position::new)
    }

    #[test]
    fn a_clean_start_takes_batches_and_notes_nothing() {
        let pace = Pace::new(100, Mark::default(), at(0));
        assert_eq!(pace.take(from(1)), 100);
        assert_eq!(pace.note(at(1), at(100)), None);
    }

    #[test]
    fn the_events_of_a_failed_batch_are_taken_one_by_one() {
        let mut pace = Pace::new(100, Mark::default(), at(0));
        pace.single_out(at(1), at(100));
        for position in 1..=100 {
            assert_eq!(pace.take(from(position)), 1);
            pace.passed(1, at(position));
        }
        assert_eq!(pace.take(from(101)), 100);
    }

    /// The last event of the batch was skipped, or belongs to another consumer.
    #[test]
    fn after_a_batch_that_failed_events_are_taken_together_again() {
        let mut pace = Pace::new(100, Mark::default(), at(0));
        pace.single_out(at(1), at(100));
        pace.passed(1, at(99));
        assert_eq!((pace.take(from(100)), pace.take(from(101))), (1, 100));
    }

    #[test]
    fn a_batch_that_is_too_large_is_halved_down_to_one_event() {
        let mut pace = Pace::new(100, Mark::default(), at(0));
        for half in [50, 25, 12, 6, 3, 1, 1] {
            pace.halve(pace.take(from(1)), at(1), at(100));
            assert_eq!(pace.take(from(1)), half);
        }
    }

    #[test]
    fn after_an_unclean_stop_events_are_noted_one_by_one() {
        let mark = Mark { at_work: Some(3), attempt: None };
        let mut pace = Pace::new(100, mark, at(0));
        for position in 1..=3 {
            assert_eq!(pace.take(from(position)), 1);
            let noted = pace.note(at(position), at(position)).expect("it is cautious");
            assert_eq!(noted.count, 1);
            pace.passed(1, at(position));
        }
        assert!(!pace.is_cautious());
    }

    #[test]
    fn skipped_events_do_not_end_the_care() {
        let mark = Mark { at_work: Some(3), attempt: None };
        let mut pace = Pace::new(100, mark, at(0));
        for position in 1..=50 {
            assert_eq!(pace.take(from(position)), 1);
            pace.passed(0, at(position));
        }
        assert!(pace.note(at(51), at(51)).is_some());
    }

    #[test]
    fn a_note_before_the_progress_is_ignored() {
        let attempt = Some(Attempt { first: at(7), last: at(7), count: 2 });
        let mark = Mark { at_work: Some(100), attempt };
        let pace = Pace::new(100, mark, at(7));
        assert_eq!(pace.deaths(at(7), at(7)), 0);
        assert_eq!(pace.care, Care::Counting(100));
    }

    #[test]
    fn the_event_that_kills_is_known_by_its_count() {
        let attempt = Some(Attempt { first: at(7), last: at(7), count: 2 });
        let mark = Mark { at_work: Some(100), attempt };
        let mut pace = Pace::new(100, mark, at(0));
        assert_eq!(pace.take(from(5)), 2, "up to the event");
        assert_eq!(pace.note(at(5), at(6)), None);
        assert_eq!(pace.take(from(7)), 1);
        assert_eq!(pace.deaths(at(7), at(7)), 2);
        assert_eq!(pace.note(at(7), at(7)).map(|noted| noted.count), Some(3));
        pace.passed(1, at(7));
        assert!(!pace.is_cautious());
    }

    #[test]
    fn with_rare_progress_batches_are_noted_first_and_then_their_events() {
        let mark = Mark { at_work: Some(100), attempt: None };
        let pace = Pace::of_snapshots(100, mark, at(0), at(1_000));
        let noted = pace.note(at(1), at(100)).expect("batches are noted");
        let mark = Mark { at_work: Some(100), attempt: Some(noted) };
        let pace = Pace::of_snapshots(100, mark, at(0), at(1_000));
        assert_eq!(pace.take(from(1)), 1);
        assert_eq!(pace.deaths(at(1), at(1)), 0, "another event may have killed it");
    }

    #[test]
    fn events_before_a_batch_that_failed_are_taken_together() {
        let mut pace = Pace::new(100, Mark::default(), at(0));
        pace.single_out(at(5), at(10));
        assert_eq!(pace.take(from(1)), 4);
        assert_eq!(pace.take(from(5)), 1);
    }

    #[test]
    fn batches_are_noted_up_to_the_head_at_the_start() {
        let mark = Mark { at_work: Some(100), attempt: None };
        let mut pace = Pace::of_snapshots(100, mark, at(0), at(1_000));
        pace.passed(100, at(999));
        assert!(pace.is_cautious());
        pace.passed(1, at(1_000));
        assert!(!pace.is_cautious());
    }
}
