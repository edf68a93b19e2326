//! Others' code in a task of its own: a panic stays there, and what never ends is left behind.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use factum_kernel::Clock;
use tokio::task::{JoinError, JoinHandle};

use crate::caught::said;

/// The time that a task whose time is over has to give its thread back.
const LEAVING: Duration = Duration::from_secs(1);

/// The outcome of a task.
#[derive(Debug)]
pub enum Apart<T> {
    /// It is done.
    Done(T),
    /// The text of its panic.
    Panicked(String),
    /// The runtime that it ran on has ended.
    Cancelled,
    /// It came no further within its time.
    Late {
        /// How far it was.
        at: usize,
        /// Each further attempt would cost another thread.
        keeps_thread: bool,
    },
}

/// Ends the task when nobody waits for it any more.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits for a task that counts in `seen` how far it is, and has this time for each step.
pub async fn apart<T>(
    task: JoinHandle<T>,
    seen: &AtomicUsize,
    timeout: Duration,
    clock: &dyn Clock,
) -> Apart<T> {
    let mut task = Task(task);
    let mut before = 0;
    loop {
        tokio::select! {
            biased;
            done = &mut task.0 => return ended(done),
            () = clock.sleep(timeout) => {
                let at = seen.load(Ordering::Relaxed);
                if at == before {
                    break;
                }
                before = at;
            }
        }
    }
    task.0.abort();
    tokio::select! {
        biased;
        done = &mut task.0 => match done {
            Err(error) if error.is_cancelled() => Apart::Late { at: before, keeps_thread: false },
            done => ended(done),
        },
        () = clock.sleep(LEAVING) => Apart::Late { at: before, keeps_thread: true },
    }
}

fn ended<T>(done: Result<T, JoinError>) -> Apart<T> {
    match done {
        Ok(done) => Apart::Done(done),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => Apart::Panicked(said(&*panic)),
            Err(_) => Apart::Cancelled,
        },
    }
}
