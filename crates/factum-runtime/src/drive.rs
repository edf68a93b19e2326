//! Who polls a cell at work: whoever asked, as long as nobody else waits for it, and else a task.
//!
//! A task for every command costs more than the command. But a future that nobody polls stands
//! still, and a caller may keep its own without polling it. So it is the caller's only while the
//! caller is alone: a second message, a shutdown, or the caller's end give it to a task.

use std::{
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll},
};

use tokio::runtime::Handle;

/// The work of a cell until it comes to rest. Dropped before, the cell is told. Also the sweeper's.
pub(crate) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where work is, for its caller and for those who want a task for it.
pub(crate) struct Drive(Mutex<At>);

enum At {
    /// Nobody polls it just now.
    Parked(Work),
    /// It is being made or polled, and then parked, or given to a task if one is wanted.
    Taken { is_task_wanted: bool },
    /// It has ended, or is a task's.
    Gone,
}

impl Drive {
    /// A place for work that is about to be made.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(At::Taken { is_task_wanted: false })))
    }

    /// Gives the work to a task, as soon as nobody polls it.
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
        // Nothing in here panics in between.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where tasks run: on the runtime that wants one, and outside of any on the first there was.
#[derive(Default)]
pub(crate) struct Home(OnceLock<Handle>);

impl Home {
    /// Remembers the runtime of whoever calls.
    ///
    /// # Panics
    /// The first time outside of a runtime.
    pub(crate) fn found(&self) {
        self.0.get_or_init(Handle::current);
    }

    pub(crate) fn spawn(&self, work: Work) {
        match Handle::try_current().ok().as_ref().or(self.0.get()) {
            Some(runtime) => drop(runtime.spawn(work)),
            // The cell is told, and whoever waits for it.
            None => drop(work),
        }
    }
}

/// The caller's hold on its work. Dropped, it gives the work to a task.
pub(crate) struct Driving<'h> {
    drive: Option<Arc<Drive>>,
    home: &'h Home,
}

impl<'h> Driving<'h> {
    /// Somebody else sees to the work.
    pub(crate) fn nothing(home: &'h Home) -> Self {
        Self { drive: None, home }
    }

    /// Work that has been made.
    pub(crate) fn new(drive: Arc<Drive>, work: Work, home: &'h Home) -> Self {
        drive.park(work, home);
        Self { drive: Some(drive), home }
    }

    /// Gets on with the work, as far as it is the caller's.
    pub(crate) fn go_on(&mut self, cx: &mut Context<'_>) {
        let Some(drive) = &self.drive else { return };
        let Some(mut work) = drive.take() else {
            self.drive = None;
            return;
        };
        // A panic is not the caller's, as it would not be in a task: the cell is told by the drop.
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
