//! The writer's connection, used only by the writer's thread.

use std::fmt;

use factum_backend::CommitError;
use factum_kernel::StoreError;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::Row;

use crate::link::{CLOSE_MAX, Dialer, Link, Parameter, Running};

/// A connection that is made again after a loss, and the runtime that drives it. The runtime
/// belongs to the writer's own thread, so that a group costs no change of threads.
pub(crate) struct Session {
    /// Made on the writer's thread, so that it ends there too.
    runtime: Option<Runtime>,
    dialer: Dialer,
    link: Option<Link>,
}

impl Session {
    pub(crate) fn new(dialer: Dialer) -> Self {
        Self { runtime: None, dialer, link: None }
    }

    /// Runs a statement as a transaction of its own, and waits for it.
    pub(crate) fn ask(
        &mut self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, CommitError> {
        self.connect()?;
        let (Some(runtime), Some(link)) = (&self.runtime, &self.link) else {
            return Err(StoreError::internal("the writer has no connection, report this").into());
        };
        runtime.block_on(link.ask(statement, parameters)).inspect_err(|error| {
            // A late answer to this statement must not be taken for the next one's.
            if let CommitError::Unknown(_) = error {
                self.leave();
            }
        })
    }

    /// Connects if there is no connection. Returns whether the connection is a new one.
    pub(crate) fn connect(&mut self) -> Result<bool, StoreError> {
        let runtime = match &self.runtime {
            Some(runtime) => runtime,
            None => {
                let made = Builder::new_current_thread().enable_all().build().map_err(|e| {
                    StoreError::unavailable("no runtime for the writer, try again").with_source(e)
                })?;
                self.runtime.insert(made)
            }
        };
        if self.link.is_some() {
            // Twice, so that the end of a connection that was cut while idle is noticed: once for
            // the system's news, once for the task that reads them.
            runtime.block_on(async {
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            });
            if self.link.as_ref().is_some_and(|link| !link.is_closed()) {
                return Ok(false);
            }
            self.leave();
        }
        let runtime = self.runtime.as_ref().expect("it was just made");
        self.link = Some(runtime.block_on(self.dialer.connect(None))?);
        Ok(true)
    }

    /// Closes the connection, and waits for that; the next statement gets another one.
    pub(crate) fn leave(&mut self) {
        if let (Some(runtime), Some(link)) = (&self.runtime, self.link.take()) {
            runtime.block_on(link.end(Running::GoesOn, CLOSE_MAX));
        }
    }

    /// The place, for error messages.
    pub(crate) fn place(&self) -> &str {
        self.dialer.place()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("place", &self.place()).finish_non_exhaustive()
    }
}
