//! Waiting until read models have handled a command's events.

use std::{future::poll_fn, task::Poll, time::Duration};

use factum_consumer::{Consumers, WaitError};
use factum_kernel::Position;
use factum_projection::Projections;

/// The default for the longest wait for read models.
pub const SEEN_WITHIN_DEFAULT: Duration = Duration::from_secs(5);

/// The consumers and projections that must handle a command's events before the caller is answered.
#[derive(Debug)]
pub(crate) struct Readers {
    names: Vec<String>,
    within: Duration,
}

impl Readers {
    pub(crate) fn none() -> Self {
        Self { names: Vec::new(), within: SEEN_WITHIN_DEFAULT }
    }

    pub(crate) fn add(&mut self, name: String) {
        self.names.push(name);
    }

    /// Sets the longest wait for all of them together.
    pub(crate) fn within(&mut self, within: Duration) {
        self.within = within;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Checks, before the command takes effect, that all of them can be waited for.
    pub(crate) async fn check(&self, consumers: &Consumers) -> Result<(), WaitError> {
        for name in &self.names {
            consumers.can_wait_for(name).await?;
        }
        Ok(())
    }

    /// Waits for all together, until each has handled the position or one of them fails.
    pub(crate) async fn wait(
        &self,
        consumers: &Consumers,
        position: Position,
    ) -> Result<(), WaitError> {
        let wait = |name| Box::pin(consumers.wait_for(name, position, self.within));
        let mut waits: Vec<_> = self.names.iter().map(|name| wait(name)).collect();
        poll_fn(|cx| {
            let mut failed = None;
            waits.retain_mut(|wait| match wait.as_mut().poll(cx) {
                Poll::Pending => true,
                Poll::Ready(seen) => {
                    failed = failed.take().or(seen.err());
                    false
                }
            });
            match failed {
                Some(error) => Poll::Ready(Err(error)),
                None if waits.is_empty() => Poll::Ready(Ok(())),
                None => Poll::Pending,
            }
        })
        .await
    }
}
