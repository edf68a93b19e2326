//! Handlers in a task of their own: a panic stays in the task, and a handler that never ends can be
//! given up.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use factum_kernel::Clock;
use tokio::task::{JoinError, JoinHandle};

use crate::caught::panic_text;

/// The time that an aborted task has to give its thread back.
const LEAVING: Duration = Duration::from_secs(1);

/// The outcome of a task.
#[derive(Debug)]
pub enum Apart<T> {
    /// The task has returned.
    Done(T),
    /// The task has panicked, with this text.
    Panicked(String),
    /// The task's runtime has ended.
    Cancelled,
    /// The task did not finish a step within its time.
    Late {
        /// The step at which the task was.
        at: usize,
        /// True if the task still holds its thread: each further attempt would cost another thread.
        keeps_thread: bool,
    },
}

/// A task that is aborted when its handle is dropped.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Waits for a task that counts its finished steps in `seen` and may take `timeout` for each.
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
            Ok(panic) => Apart::Panicked(panic_text(&*panic)),
            Err(_) => Apart::Cancelled,
        },
    }
}
