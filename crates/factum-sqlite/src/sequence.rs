//! The check that a read left nothing out: the numbers that it passed, and those that it did not
//! meet.
//!
//! A damaged tree can hide events or show them twice without an error from SQLite.

use factum_kernel::Direction;

use crate::error::{Fault, Result};

/// The positions, or the versions of a stream, in the order of a read.
#[derive(Debug)]
pub(crate) struct Sequence {
    direction: Direction,
    /// The number that comes next if nothing is left out.
    next: u64,
    missing: Vec<(u64, u64)>,
}

impl Sequence {
    /// A read that begins at this number.
    pub(crate) fn new(direction: Direction, start: u64) -> Self {
        Self { direction, next: start, missing: Vec::new() }
    }

    /// Passes an event.
    pub(crate) fn pass(&mut self, number: u64) -> Result<()> {
        let is_in_order = match self.direction {
            Direction::Forward => number >= self.next,
            Direction::Backward => number <= self.next && number > 0,
        };
        if !is_in_order {
            return Err(Fault::Damage(format!("events are out of order: number={number}")));
        }
        match self.direction {
            Direction::Forward => self.note(self.next, number.saturating_sub(1), number + 1),
            Direction::Backward => self.note(number.saturating_add(1), self.next, number - 1),
        }
        Ok(())
    }

    /// The ranges that were left out up to the end of the read, in ascending order.
    pub(crate) fn missing(mut self, through: u64) -> Vec<(u64, u64)> {
        match self.direction {
            Direction::Forward => self.note(self.next, through, through),
            Direction::Backward => {
                self.note(through.max(1), self.next, through);
                self.missing.reverse();
            }
        }
        self.missing
    }

    fn note(&mut self, first: u64, last: u64, next: u64) {
        if first <= last && last > 0 {
            self.missing.push((first, last));
        }
        self.next = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(direction: Direction, start: u64, numbers: &[u64], through: u64) -> Vec<(u64, u64)> {
        let mut sequence = Sequence::new(direction, start);
        for number in numbers {
            sequence.pass(*number).unwrap();
        }
        sequence.missing(through)
    }

    #[test]
    fn what_was_left_out_is_told_in_ascending_order() {
        use Direction::{Backward, Forward};
        assert_eq!(missing(Forward, 1, &[1, 2, 3], 3), []);
        assert_eq!(missing(Forward, 1, &[2, 5], 7), [(1, 1), (3, 4), (6, 7)]);
        assert_eq!(missing(Forward, 9, &[], 8), []);
        assert_eq!(missing(Backward, 7, &[5, 2], 0), [(1, 1), (3, 4), (6, 7)]);
        assert_eq!(missing(Backward, 3, &[3, 2, 1], 1), []);
        assert_eq!(missing(Backward, 0, &[], 0), []);
    }

    #[test]
    fn an_event_twice_or_out_of_order_is_damage() {
        for (direction, numbers) in [(Direction::Forward, [2, 2]), (Direction::Backward, [3, 4])] {
            let mut sequence = Sequence::new(direction, numbers[0]);
            sequence.pass(numbers[0]).unwrap();
            sequence.pass(numbers[1]).unwrap_err();
        }
    }
}
