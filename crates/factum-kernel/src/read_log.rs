//! A whole read, page after page, with a check that no position is missing.

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

/// The reason why a read can't continue.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A position is missing from the log: events are lost, or the store broke its laws.
    #[error(
        "the log has a hole, restore the store from a backup: expected={expected} found={found}"
    )]
    Gap {
        /// The position that should have come next.
        expected: Position,
        /// The position that came.
        found: Position,
    },
    /// The log is not the one that was read before.
    #[error(transparent)]
    Diverged(#[from] Diverged),
}

impl ReadError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind().into(),
            Self::Gap { .. } => ErrorKind::Corrupt,
            Self::Diverged(error) => error.kind(),
        }
    }

    /// Converts the error to one of the store. A gap and another log become `Corrupt`.
    pub fn into_store_error(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            other => StoreError::corrupt(other.to_string()),
        }
    }
}

impl Page {
    /// Checks that events and erased ranges follow each other without a hole from `first` to
    /// `scanned_through`, as they must in a forward read of the whole log.
    ///
    /// # Errors
    /// [`ReadError::Gap`] for the first hole.
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
        // A read may begin after the head, where no event can be missing.
        if expected == end || first > end {
            Ok(())
        } else {
            Err(ReadError::Gap { expected, found: end })
        }
    }
}

/// A whole read, page after page, up to the head that the last page saw. A forward read of the
/// whole log is checked for holes.
///
/// It is a [`Stream`] too. A read of the whole log or of a query leaves out system events
/// (categories that begin with `$`), unless [`with_system`](Self::with_system) is set.
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
    /// In a read of the whole log: the next position, once a page was read.
    expected: Option<Position>,
    buffer: VecDeque<RecordedEvent>,
    pending: Option<Fetch>,
}

type Fetch = Pin<Box<dyn Future<Output = Result<Page, StoreError>> + Send>>;

impl ReadLog {
    /// A read that begins with the page of this query.
    pub fn new(store: Arc<dyn EventStore>, query: ReadQuery) -> Self {
        let buffer = VecDeque::new();
        let pending = None;
        let expected = None;
        Self { store, query, is_done: false, with_system: false, expected, buffer, pending }
    }

    /// Includes system events.
    pub fn with_system(mut self) -> Self {
        self.with_system = true;
        self
    }

    /// Returns the next event; `None` at the end. An error ends the read.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
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

/// True if the positions must follow each other. A filtered read has holes of its own.
fn is_whole_log(query: &ReadQuery) -> bool {
    query.scope == Scope::Log && query.direction == Direction::Forward && query.origin.is_none()
}

/// The first position of a forward read of the log. For a read that begins at a time, only the page
/// shows it.
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

/// True if a read of this scope leaves out system events by default.
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
