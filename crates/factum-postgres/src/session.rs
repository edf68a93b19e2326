//! The writer's connection, used by the writer's thread alone.

use std::fmt;

use factum_backend::CommitError;
use factum_core::StoreError;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::Row;

use crate::link::{Dialer, Link, Parameter};

/// A connection that is made anew when it was lost, and the runtime that drives it: the writer's
/// own thread, so that a group costs no change of threads.
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
        let Self { runtime, dialer, link } = self;
        let runtime = match runtime {
            Some(runtime) => runtime,
            None => {
                let made = Builder::new_current_thread().enable_all().build().map_err(|e| {
                    StoreError::unavailable("no runtime for the writer, try again").with_source(e)
                })?;
                runtime.insert(made)
            }
        };
        runtime
            .block_on(async {
                // Twice, so that the end of a connection that was cut while idle is noticed:
                // once for the system's news, once for the task that reads them.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                if link.as_ref().is_some_and(Link::is_closed) {
                    *link = None;
                }
                let link = match link {
                    Some(link) => link,
                    None => link.insert(dialer.connect(None).await?),
                };
                link.ask(statement, parameters).await
            })
            .inspect_err(|error| {
                // What it still has to say of one statement must not be taken for the next.
                if let CommitError::Unknown(_) = error {
                    self.link = None;
                }
            })
    }

    /// The place that errors name.
    pub(crate) fn place(&self) -> &str {
        &self.dialer.place
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("place", &self.place()).finish_non_exhaustive()
    }
}
