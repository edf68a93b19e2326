//! A prefetch of one page: the next page is read from the disk while the consumer handles the
//! current one.

use std::sync::Arc;

use factum_kernel::{Page, ReadError, StoreError, SubscriptionPages};
use tokio::{sync::Semaphore, task::JoinHandle};

type Read = (Box<SubscriptionPages>, Result<Option<Page>, ReadError>);

/// The pages of a subscription, with the read in flight.
#[derive(Debug)]
pub(crate) struct Ahead {
    limit: Arc<Semaphore>,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle(Box<SubscriptionPages>),
    Reading(JoinHandle<Read>),
    /// A read was interrupted, and the pages are lost.
    Gone,
}

impl Ahead {
    /// A prefetch without a read in flight. `limit` bounds the reads of all consumers.
    pub(crate) fn new(pages: SubscriptionPages, limit: Arc<Semaphore>) -> Self {
        Self { limit, state: State::Idle(Box::new(pages)) }
    }

    /// Starts to read the next page, unless a read is in flight.
    pub(crate) fn begin(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Gone) {
            State::Idle(mut pages) => {
                let limit = self.limit.clone();
                State::Reading(tokio::spawn(async move {
                    let _room = limit.acquire().await.expect("the semaphore is never closed");
                    let page = pages.try_next().await;
                    (pages, page)
                }))
            }
            other => other,
        };
    }

    /// The next page; `None` at the end of the log.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Page>, ReadError> {
        self.begin();
        let cut_off = || {
            let message = "the runtime on which a page was read has ended, read again";
            ReadError::from(StoreError::unavailable(message))
        };
        let State::Reading(reading) = &mut self.state else { return Err(cut_off()) };
        let (pages, page) = match reading.await {
            Ok(read) => read,
            // The store panicked: let the worker that runs the consumer handle it.
            Err(error) if error.is_panic() => {
                self.state = State::Gone;
                std::panic::resume_unwind(error.into_panic());
            }
            Err(_) => {
                self.state = State::Gone;
                return Err(cut_off());
            }
        };
        self.state = State::Idle(pages);
        page
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let State::Reading(reading) = &self.state {
            reading.abort();
        }
    }
}
