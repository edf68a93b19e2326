//! The event bus: typed events of the log from now on, in this process and without a checkpoint.

use std::{collections::VecDeque, fmt};

use factum_kernel::{DecodeError, ErrorKind, Event, Position, ReadError, RecordedEvent, Scope};

use crate::{
    option::{BATCH_BYTES_DEFAULT, BATCH_EVENTS_DEFAULT, Unknown},
    source::{Chunk, PageMax, Reading, Source},
    work::{Failure, Names, decode},
};

/// The reason why a listener gets no event.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The log can't be read. The next call tries again.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An event can't be decoded. The next call returns the event after it.
    #[error(transparent)]
    Decode(Box<DecodeError>),
}

impl BusError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read(error) => error.kind(),
            Self::Decode(error) => error.kind(),
        }
    }
}

/// The events of an enum from now on, read from the log: every stored event comes, and only stored
/// events come. A slow listener delays no other. It falls behind, which [`lag`](Self::lag) shows,
/// and reads the missed events from the log.
///
/// An event bus has no checkpoint: events that are stored while no listener exists are missed. If
/// that matters, start a [`Consumer`](crate::Consumer).
///
/// ```
/// use factum_consumer::Consumers;
/// use factum_testing::bank::AccountEvent;
/// # use factum_testing::bank::{Account, AccountCommand};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
/// # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
/// # let accounts = factum_kernel::Repository::<Account>::new(kernel.clone());
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
    reading: Reading,
    source: Source,
    chunk: Option<(Chunk, usize)>,
    decoded: VecDeque<(E, RecordedEvent)>,
    /// The position up to which every event was returned.
    through: Position,
}

impl<E: Event> EventBus<E> {
    /// The events after the log's end as this process knows it now.
    pub(crate) fn new(reading: Reading) -> Self {
        let through = *reading.kernel.events().head().borrow();
        let page_max = PageMax { events: BATCH_EVENTS_DEFAULT, bytes: BATCH_BYTES_DEFAULT };
        let source = Source::new(reading.clone(), Scope::Log, page_max, Err(through));
        let names = Names::new(Unknown::Ignore);
        let decoded = VecDeque::new();
        Self { names, reading, source, chunk: None, decoded, through }
    }

    /// The number of positions from the last returned event to the log's end.
    pub fn lag(&self) -> u64 {
        let head = *self.reading.kernel.events().head().borrow();
        head.value().saturating_sub(self.through.value())
    }

    /// The next event, decoded and as recorded; waits for it.
    ///
    /// # Errors
    /// See [`BusError`].
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
    pub async fn next(&mut self) -> Result<(E, RecordedEvent), BusError> {
        loop {
            if let Some(found) = self.decoded.pop_front() {
                return Ok(found);
            }
            let Some((chunk, at)) = &mut self.chunk else {
                self.chunk = self.source.next().await?.map(|chunk| (chunk, 0));
                continue;
            };
            let Some(event) = chunk.events().get(*at) else {
                self.through = chunk.through;
                self.chunk = None;
                continue;
            };
            *at += 1;
            self.through = event.position();
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
    }
}

impl<E> fmt::Debug for EventBus<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBus").field("through", &self.through).finish_non_exhaustive()
    }
}
