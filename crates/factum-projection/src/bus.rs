//! The event bus: typed events as they are stored, in this process, without a checkpoint.

use std::{collections::VecDeque, fmt, sync::Arc};

use factum_core::{DecodeError, Event, Position, RecordedEvent};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::{
    option::Unknown,
    tail::{Tail, TailPage},
    work::{Failure, Names, decode},
};

/// What a listener is told instead of an event. It goes on after either.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// It was too slow, or the store failed for a while: events between these positions are
    /// missing. They are in the log, to be read from there.
    #[error("the listener has missed events: after={after} through={through}")]
    Missed {
        /// Nothing is missing up to here.
        after: Position,
        /// Nothing is missing behind this.
        through: Position,
    },
    /// An event can't be decoded.
    #[error(transparent)]
    Decode(Box<DecodeError>),
}

/// Events of an enum from now on, fed from the log: nothing comes that is not stored. A slow
/// listener holds nobody up; what it misses it is told.
///
/// For what must not be missed, start a [`Consumer`](crate::Consumer).
///
/// ```
/// use factum_projection::Consumers;
/// use factum_testing::bank::AccountEvent;
/// # use factum_testing::bank::{Account, AccountCommand};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_core::Kernel::new(store.clone(), store);
/// # let kernel = kernel.with_tag_key(factum_core::TagKey::new([1; 32]));
/// # let accounts = factum_core::Repository::<Account>::new(kernel.clone());
/// let mut events = Consumers::new(kernel).events::<AccountEvent>();
/// # let email = "ada@example.org".to_owned();
/// # accounts.execute("ada", &AccountCommand::Open { owner: "Ada".into(), email }).await?;
/// let (event, recorded) = events.next().await?;
/// assert!(matches!(event, AccountEvent::Opened { .. }));
/// assert_eq!(recorded.stream().key(), "ada");
/// # Ok(()) }
/// ```
#[must_use]
pub struct EventBus<E> {
    names: Names<E>,
    tail: Arc<Tail>,
    pages: broadcast::Receiver<TailPage>,
    /// Where it is; `None` before its first page.
    after: Option<Position>,
    page: Option<(TailPage, usize)>,
    decoded: VecDeque<(E, RecordedEvent)>,
}

impl<E: Event> EventBus<E> {
    pub(crate) fn new(tail: Arc<Tail>) -> Self {
        let (names, pages) = (Names::new(Unknown::Ignore), tail.listen());
        Self { names, tail, pages, after: None, page: None, decoded: VecDeque::new() }
    }

    /// The next event, with how it was recorded; waits for it.
    ///
    /// # Errors
    /// See [`BusError`]; the next call goes on behind it.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
    pub async fn next(&mut self) -> Result<(E, RecordedEvent), BusError> {
        loop {
            if let Some(found) = self.decoded.pop_front() {
                return Ok(found);
            }
            match &mut self.page {
                Some((TailPage { page, .. }, at)) if *at < page.events.len() => {
                    let event = &page.events[*at];
                    *at += 1;
                    if event.stream().is_system() || !self.names.wants(event.name()) {
                        continue;
                    }
                    match decode::<E>(event) {
                        Ok((first, rest)) => {
                            let all = first.into_iter().chain(rest);
                            self.decoded.extend(all.map(|it| (it, event.clone())));
                        }
                        Err(Failure::Decode(error)) => return Err(BusError::Decode(error)),
                        Err(Failure::Handler(_)) => unreachable!("nothing is handled here"),
                    }
                }
                _ => self.turn().await?,
            }
        }
    }

    /// The next page of the tail.
    async fn turn(&mut self) -> Result<(), BusError> {
        self.page = None;
        let page = loop {
            match self.pages.recv().await {
                Ok(page) if Some(page.page.scanned_through) <= self.after => {}
                Ok(page) => break page,
                Err(RecvError::Lagged(_)) => {}
                // The tail lives as long as this holds it.
                Err(RecvError::Closed) => self.pages = self.tail.listen(),
            }
        };
        let (through, begins) = (page.page.scanned_through, page.after);
        let after = self.after.replace(through);
        let at = page.page.events.partition_point(|it| Some(it.position()) <= after);
        self.page = Some((page, at));
        match after {
            Some(after) if begins > after => Err(BusError::Missed { after, through: begins }),
            _ => Ok(()),
        }
    }
}

impl<E> fmt::Debug for EventBus<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBus").field("after", &self.after).finish_non_exhaustive()
    }
}
