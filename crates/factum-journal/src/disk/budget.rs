//! Reads that must not wait for the disk, because they run on a thread that other tasks need.
//!
//! Most reads find their bytes in the system's memory, and need no wait. At the first byte that is
//! not there, the work is given up; the caller repeats it on a thread that may wait.

use std::{cell::Cell, io};

/// The most bytes that such work may read; decoding them takes half a millisecond. A page of the
/// default size is half of it, and reading goes a little beyond the page's end.
const BYTES_MAX: usize = 2 << 20;

/// The bytes that the work of this thread may still read.
#[derive(Debug, Clone, Copy)]
enum Budget {
    /// A read may wait.
    Unlimited,
    /// A read must not wait, and the work may read this many more bytes.
    Left(usize),
    /// A read would have waited, and the work was given up.
    GaveUp,
}

thread_local! {
    static BUDGET: Cell<Budget> = const { Cell::new(Budget::Unlimited) };
}

/// Does work whose reads of files must not wait; `None` if a read would have waited.
pub(crate) fn without_waiting<T>(work: impl FnOnce() -> T) -> Option<T> {
    /// Resets the state, also when the work panics.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            BUDGET.set(Budget::Unlimited);
        }
    }
    let _reset = Reset;
    BUDGET.set(Budget::Left(BYTES_MAX));
    let done = work();
    (!matches!(BUDGET.get(), Budget::GaveUp)).then_some(done)
}

/// The way in which a read is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadMode {
    /// The read may wait for the disk.
    MayWait,
    /// The read must fail instead of waiting; see [`give_up`].
    NoWait,
    /// The read must not be done: the work was given up.
    Refused,
}

/// Charges a read of this many bytes to the budget, and returns the way in which to do it.
pub(super) fn charge(bytes: usize) -> ReadMode {
    match BUDGET.get() {
        Budget::Unlimited => ReadMode::MayWait,
        Budget::GaveUp => ReadMode::Refused,
        Budget::Left(left) => match left.checked_sub(bytes) {
            Some(left) => {
                BUDGET.set(Budget::Left(left));
                ReadMode::NoWait
            }
            None => {
                give_up();
                ReadMode::Refused
            }
        },
    }
}

/// Counts work without reads against the limit. `bytes`: the number of bytes that could be read in
/// the same time.
///
/// # Errors
/// The work was given up, and must not go on here.
pub(crate) fn spend(bytes: usize) -> io::Result<()> {
    match charge(bytes) {
        ReadMode::MayWait | ReadMode::NoWait => Ok(()),
        ReadMode::Refused => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Gives the work up, because a read would wait or has failed. The repetition that may wait reports
/// the error.
pub(super) fn give_up() {
    BUDGET.set(Budget::GaveUp);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_given_up_at_the_first_read_that_would_wait() {
        assert_eq!(without_waiting(|| charge(8)), Some(ReadMode::NoWait));
        let none = without_waiting(|| {
            assert_eq!(charge(8), ReadMode::NoWait);
            give_up();
            assert_eq!(charge(8), ReadMode::Refused);
        });
        assert_eq!(none, None);
        assert_eq!(charge(8), ReadMode::MayWait, "outside it waits");
    }

    #[test]
    fn work_without_reads_is_given_up_when_it_takes_as_long() {
        let steps = Cell::new(0);
        let work = || {
            while spend(1 << 10).is_ok() {
                steps.set(steps.get() + 1);
            }
        };
        assert_eq!(without_waiting(work), None);
        assert_eq!(steps.get(), BYTES_MAX >> 10);
        assert!(spend(usize::MAX).is_ok(), "outside it may take its time");
    }

    #[test]
    fn more_than_a_moment_takes_is_given_up_and_a_panic_leaves_nothing_behind() {
        assert_eq!(without_waiting(|| charge(BYTES_MAX)), Some(ReadMode::NoWait));
        assert_eq!(without_waiting(|| (charge(BYTES_MAX), charge(1))), None);
        let panicked = std::panic::catch_unwind(|| without_waiting(|| panic!("in the work")));
        assert!(panicked.is_err());
        assert_eq!(charge(8), ReadMode::MayWait);
    }
}
