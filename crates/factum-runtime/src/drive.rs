//! The polling of an active cell: by its caller while no other message waits for it, else by a
//! task.
//!
//! A task for each command costs more than the command. But a future that is not polled makes no
//! progress, and a caller may keep its future without polling it. So the caller drives the work
//! only while it is the only one that waits. A second message, a shutdown, or the end of the caller
//! moves the work to a task.

use std::{
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll},
};

use tokio::runtime::Handle;

/// The work of a cell until it is idle. If it is dropped before, the cell is notified. The
/// sweeper's work has this type too.
pub(crate) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The place of a cell's work, shared by its caller and by others that may move it to a task.
pub(crate) struct Drive(Mutex<At>);

enum At {
    /// Nothing polls it at the moment.
    Parked(Work),
    /// It is being made or polled. After that it is parked, or moved to a task if one is wanted.
    Taken { is_task_wanted: bool },
    /// It has ended, or a task has it.
    Gone,
}

impl Drive {
    /// A place for work that will be made next.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(At::Taken { is_task_wanted: false })))
    }

    /// Moves the work to a task, as soon as it is not being polled.
    pub(crate) fn give_to_a_task(&self, home: &Home) {
        let mut at = self.at();
        if let At::Taken { is_task_wanted } = &mut *at {
            *is_task_wanted = true;
            return;
        }
        let found = mem::replace(&mut *at, At::Gone);
        drop(at);
        if let At::Parked(work) = found {
            home.spawn(work);
        }
    }

    fn park(&self, work: Work, home: &Home) {
        let mut at = self.at();
        if let At::Taken { is_task_wanted: false } = *at {
            *at = At::Parked(work);
            return;
        }
        *at = At::Gone;
        drop(at);
        home.spawn(work);
    }

    fn take(&self) -> Option<Work> {
        let mut at = self.at();
        if !matches!(*at, At::Parked(_)) {
            return None;
        }
        match mem::replace(&mut *at, At::Taken { is_task_wanted: false }) {
            At::Parked(work) => Some(work),
            _ => None,
        }
    }

    fn at(&self) -> MutexGuard<'_, At> {
        // No code under this lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The runtime for tasks: the current one, or outside of any runtime the first that was used.
#[derive(Default)]
pub(crate) struct Home(OnceLock<Handle>);

impl Home {
    /// Remembers the caller's runtime.
    ///
    /// # Panics
    /// If the first call is made outside of a runtime.
    pub(crate) fn found(&self) {
        self.0.get_or_init(Handle::current);
    }

    pub(crate) fn spawn(&self, work: Work) {
        match Handle::try_current().ok().as_ref().or(self.0.get()) {
            Some(runtime) => drop(runtime.spawn(work)),
            // Dropping the work notifies the cell and the callers that wait for it.
            None => drop(work),
        }
    }
}

/// The caller's handle on the work that it drives. Dropping it moves the work to a task.
pub(crate) struct Driving<'h> {
    drive: Option<Arc<Drive>>,
    home: &'h Home,
}

impl<'h> Driving<'h> {
    /// A handle without work, because a task or another caller drives it.
    pub(crate) fn nothing(home: &'h Home) -> Self {
        Self { drive: None, home }
    }

    /// A handle on new work.
    pub(crate) fn new(drive: Arc<Drive>, work: Work, home: &'h Home) -> Self {
        drive.park(work, home);
        Self { drive: Some(drive), home }
    }

    /// Polls the work, as long as it is the caller's.
    pub(crate) fn go_on(&mut self, cx: &mut Context<'_>) {
        let Some(drive) = &self.drive else { return };
        let Some(mut work) = drive.take() else {
            self.drive = None;
            return;
        };
        // The caller doesn't see a panic, as it would not see a task's. The drop notifies the cell.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(Poll::Pending) => drive.park(work, self.home),
            Ok(Poll::Ready(())) | Err(_) => {
                *drive.at() = At::Gone;
                self.drive = None;
            }
        }
    }
}

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        if let Some(drive) = self.drive.take() {
            drive.give_to_a_task(self.home);
        }
    }
}
