//! The tasks of a worker: a run, which reports its end in all cases, and a timer.

use std::{
    any::Any,
    error::Error,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Weak},
    task::Poll,
    thread,
    time::Duration,
};

use factum_kernel::{Clock, ErrorKind, sentence};

use super::{
    Shared,
    machine::{End, Input, Ticket, WorkerId},
    worker::{Factory, WorkerContext},
};
use crate::cell::Blame;

/// The task of a run. However the task ends, it reports that to the supervisor.
pub(super) struct Run {
    shared: Weak<Shared>,
    id: WorkerId,
    ticket: Ticket,
    end: Option<End>,
}

impl Run {
    pub(super) fn new(shared: Weak<Shared>, id: WorkerId, ticket: Ticket) -> Self {
        Self { shared, id, ticket, end: None }
    }

    pub(super) async fn run(mut self, factory: Arc<Factory>, cx: WorkerContext) {
        self.end = Some(outcome(&*factory, cx).await);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        // A panic that arrives here is one of a destructor. Other panics are caught.
        let unreported = || match thread::panicking() {
            true => End::Failed("it panicked while it was dropped".into(), Blame::Entity),
            false => End::Dropped,
        };
        let end = self.end.take().unwrap_or_else(unreported);
        shared.apply(Input::Ended(self.id, self.ticket, end));
    }
}

/// The timer of a worker. If its runtime ends before it rings, it reports that to the supervisor.
pub(super) struct Timer {
    shared: Weak<Shared>,
    id: WorkerId,
    ticket: Ticket,
    has_rung: bool,
}

impl Timer {
    pub(super) fn new(shared: Weak<Shared>, id: WorkerId, ticket: Ticket) -> Self {
        Self { shared, id, ticket, has_rung: false }
    }

    pub(super) async fn run(mut self, clock: Arc<dyn Clock>, after: Duration) {
        clock.sleep(after).await;
        self.has_rung = true;
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        // A silenced timer reports too. The machine ignores it, because its ticket is old.
        let input = if self.has_rung { Input::Rang } else { Input::Unrung };
        shared.apply(input(self.id, self.ticket));
    }
}

async fn outcome(factory: &Factory, cx: WorkerContext) -> End {
    let mut work = match catch_unwind(AssertUnwindSafe(|| factory(cx))) {
        Ok(work) => work,
        Err(panic) => return panicked(&*panic),
    };
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::as_mut(&mut work).poll(cx)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => Poll::Ready(End::Done),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(failed(&*error)),
            Err(panic) => Poll::Ready(panicked(&*panic)),
        }
    })
    .await
}

/// Classifies an error: an outage of a service that the worker needs is not its death.
fn failed(error: &(dyn Error + 'static)) -> End {
    let is_outage = ErrorKind::of(error).is_some_and(ErrorKind::is_outage);
    let blame = if is_outage { Blame::Store } else { Blame::Entity };
    End::Failed(sentence(error).into(), blame)
}

fn panicked(panic: &(dyn Any + Send)) -> End {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    End::Failed(format!("it panicked: {:?}", text.unwrap_or("")).into(), Blame::Entity)
}
