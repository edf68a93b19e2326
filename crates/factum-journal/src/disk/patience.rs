//! Reading where nobody may wait for the disk: on a thread that other tasks need.
//!
//! What the system's memory holds is read at once, which is most of what is ever asked; at the
//! first byte that it does not hold, the work is given up, to be done where waiting does no harm.

use std::{cell::Cell, io};

/// What may be read without a pause, in bytes; decoding it takes half a millisecond. A page of the
/// default size is half of it, and reading goes a little beyond its end.
const BYTES_MAX: usize = 2 << 20;

#[derive(Debug, Clone, Copy)]
enum Patience {
    /// A read may wait.
    Waits,
    /// It may not, and so much may be read in all.
    Hurries(usize),
    /// It would have had to.
    GaveUp,
}

thread_local! {
    static PATIENCE: Cell<Patience> = const { Cell::new(Patience::Waits) };
}

/// Does some work whose reads of files must not wait; `None` if one would have had to.
pub(crate) fn without_waiting<T>(work: impl FnOnce() -> T) -> Option<T> {
    /// Also when the work panics.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            PATIENCE.set(Patience::Waits);
        }
    }
    let _reset = Reset;
    PATIENCE.set(Patience::Hurries(BYTES_MAX));
    let done = work();
    (!matches!(PATIENCE.get(), Patience::GaveUp)).then_some(done)
}

/// How a read is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It may wait for the disk.
    Waiting,
    /// It must fail instead; see [`give_up`].
    Hurrying,
    /// Not at all: the work was given up.
    None,
}

/// How a read of so many bytes is to be done.
pub(super) fn way(bytes: usize) -> Way {
    match PATIENCE.get() {
        Patience::Waits => Way::Waiting,
        Patience::GaveUp => Way::None,
        Patience::Hurries(left) => match left.checked_sub(bytes) {
            Some(left) => {
                PATIENCE.set(Patience::Hurries(left));
                Way::Hurrying
            }
            None => {
                give_up();
                Way::None
            }
        },
    }
}

/// Says that something was done without reading that takes as long as reading so many bytes.
///
/// # Errors
/// It must not be done here: the work was given up.
pub(crate) fn spend(bytes: usize) -> io::Result<()> {
    match way(bytes) {
        Way::Waiting | Way::Hurrying => Ok(()),
        Way::None => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Gives the work up: a read would wait, or failed, which is for the one who may wait to tell.
pub(super) fn give_up() {
    PATIENCE.set(Patience::GaveUp);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_given_up_at_the_first_read_that_would_wait() {
        assert_eq!(without_waiting(|| way(8)), Some(Way::Hurrying));
        let none = without_waiting(|| {
            assert_eq!(way(8), Way::Hurrying);
            give_up();
            assert_eq!(way(8), Way::None);
        });
        assert_eq!(none, None);
        assert_eq!(way(8), Way::Waiting, "outside it waits");
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
        assert_eq!(without_waiting(|| way(BYTES_MAX)), Some(Way::Hurrying));
        assert_eq!(without_waiting(|| (way(BYTES_MAX), way(1))), None);
        let panicked = std::panic::catch_unwind(|| without_waiting(|| panic!("in the work")));
        assert!(panicked.is_err());
        assert_eq!(way(8), Way::Waiting);
    }
}
