//! A whole read, page after page, and the check that nothing is missing from it.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;

use crate::{
    checkpoint::Diverged,
    error::StoreError,
    kind::ErrorKind,
    page::Page,
    position::Position,
    read::{Direction, ReadFrom, ReadQuery, Scope},
    recorded::RecordedEvent,
    store::EventStore,
};

/// Why a read can't go on.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A position is missing from the log: events are lost, or the store broke its laws.
    #[error(
        "the log has a hole, restore the store from a backup: expected={expected} found={found}"
    )]
    Gap {
        /// The position that had to come.
        expected: Position,
        /// The one that came.
        found: Position,
    },
    /// The log is another one than before.
    #[error(transparent)]
    Diverged(#[from] Diverged),
}

impl ReadError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind().into(),
            Self::Gap { .. } => ErrorKind::Corrupt,
            Self::Diverged(error) => error.kind(),
        }
    }

    /// As an error of the store; holes and other logs are `Corrupt`.
    pub fn into_store_error(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            other => StoreError::corrupt(other.to_string()),
        }
    }
}

impl Page {
    /// Checks that events and erased ranges follow one another from `first` through to
    /// `scanned_through` without a hole, as they must in a forward read of the whole log.
    ///
    /// # Errors
    /// [`ReadError::Gap`] with the first hole.
    pub fn check_gapless(&self, first: Position) -> Result<(), ReadError> {
        let mut expected = first;
        let mut erased = self.erased.iter().peekable();
        let mut pass_erased = |expected: &mut Position| {
            while let Some(range) = erased.next_if(|range| range.first == *expected) {
                *expected = range.last.next();
            }
        };
        for event in &self.events {
            pass_erased(&mut expected);
            if event.position() != expected {
                return Err(ReadError::Gap { expected, found: event.position() });
            }
            expected = expected.next();
        }
        pass_erased(&mut expected);
        let end = self.scanned_through.next();
        // Behind the head there is nothing to miss: a read may begin there.
        if expected == end || first > end {
            Ok(())
        } else {
            Err(ReadError::Gap { expected, found: end })
        }
    }
}

/// A whole read, page after page, to the end that each page saw. A forward read of the log is
/// checked for holes.
///
/// It is a [`Stream`] too. Of the whole log or a query it leaves out the system's own events
/// (categories that begin with `$`), unless asked.
///
/// ```
/// use factum_kernel::{ReadLog, ReadQuery};
/// # use factum_testing::bank::{Account, AccountCommand};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
/// # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
/// # let accounts = factum_kernel::Repository::<Account>::new(kernel.clone());
/// # let email = "ada@example.org".to_owned();
/// # accounts.execute("ada", &AccountCommand::Open { owner: "Ada".into(), email }).await?;
/// let mut events = ReadLog::new(kernel.events().clone(), ReadQuery::log());
/// let mut names = Vec::new();
/// while let Some(event) = events.next().await {
///     names.push(event?.name().to_owned());
/// }
/// assert_eq!(names, ["account.opened"]);
/// # Ok(()) }
/// ```
#[must_use]
pub struct ReadLog {
    store: Arc<dyn EventStore>,
    query: ReadQuery,
    is_done: bool,
    with_system: bool,
    /// In a read of the whole log: the position that has to come next, once one was seen.
    expected: Option<Position>,
    buffer: VecDeque<RecordedEvent>,
    pending: Option<Fetch>,
}

type Fetch = Pin<Box<dyn Future<Output = Result<Page, StoreError>> + Send>>;

impl ReadLog {
    /// The read that begins with this page.
    pub fn new(store: Arc<dyn EventStore>, query: ReadQuery) -> Self {
        let buffer = VecDeque::new();
        let pending = None;
        let expected = None;
        Self { store, query, is_done: false, with_system: false, expected, buffer, pending }
    }

    /// The system's own events too.
    pub fn with_system(mut self) -> Self {
        self.with_system = true;
        self
    }

    /// The next event; `None` at the end. After an error the read is over.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
    pub async fn next(&mut self) -> Option<Result<RecordedEvent, ReadError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    fn accept(&mut self, page: Page) -> Result<(), ReadError> {
        if is_whole_log(&self.query) {
            let first = self.expected.or_else(|| first_expected(self.query.from, &page));
            if let Some(first) = first {
                page.check_gapless(first)?;
                self.expected = Some(page.scanned_through.next());
            }
        }
        match self.query.next(&page) {
            Some(next) => self.query = next,
            None => self.is_done = true,
        }
        let hides_system = !self.with_system && hides_system(&self.query.scope);
        let events = page.events.into_iter();
        self.buffer.extend(events.filter(|e| !hides_system || !e.stream().is_system()));
        Ok(())
    }
}

/// Whether positions must follow one another: a filter leaves holes of its own.
fn is_whole_log(query: &ReadQuery) -> bool {
    query.scope == Scope::Log && query.direction == Direction::Forward && query.origin.is_none()
}

/// The position that a forward read of the log has to begin at; where it begins by time, only the
/// page tells.
fn first_expected(from: ReadFrom, page: &Page) -> Option<Position> {
    match from {
        ReadFrom::Start => Some(Position::new(1)),
        ReadFrom::Position(position) => Some(position.max(Position::new(1))),
        ReadFrom::End | ReadFrom::Version(_) | ReadFrom::Time(_) => {
            let event = page.events.first().map(RecordedEvent::position);
            let erased = page.erased.first().map(|range| range.first);
            event.into_iter().chain(erased).min()
        }
    }
}

/// Whether a read of this scope leaves out the system's own events by default.
pub(crate) fn hides_system(scope: &Scope) -> bool {
    matches!(scope, Scope::Log | Scope::Query(_))
}

impl Stream for ReadLog {
    type Item = Result<RecordedEvent, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.buffer.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.is_done {
                return Poll::Ready(None);
            }
            let this = &mut *self;
            let fetch = this.pending.get_or_insert_with(|| {
                let store = this.store.clone();
                let query = this.query.clone();
                Box::pin(async move { store.read(query).await })
            });
            let page = ready!(fetch.as_mut().poll(cx));
            self.pending = None;
            if let Err(error) = page.map_err(ReadError::from).and_then(|page| self.accept(page)) {
                self.is_done = true;
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl std::fmt::Debug for ReadLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadLog").field("query", &self.query).finish_non_exhaustive()
    }
}
