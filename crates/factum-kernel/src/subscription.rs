//! An endless read: the events that are there, and then each new one.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use tokio::sync::watch;

use crate::{
    checkpoint::{Checkpoint, Diverged, DivergedReason},
    kernel::Kernel,
    page::Page,
    position::{Lineage, Position},
    read::{ReadFrom, ReadQuery, Scope},
    read_log::{ReadError, hides_system},
    recorded::RecordedEvent,
    store::EventStore,
    time::{Clock, Monotonic},
};

/// The time without a read after which the last event is checked again. To put another log in the
/// store's place, for instance by restoring a server, takes longer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The number of positions that a subscription scans without a matching event before its checkpoint
/// advances. A subscription that begins at the checkpoint scans at most this many positions again.
/// Each step reads one event.
const CHECKPOINT_STEP: u64 = 1_000;

/// The place *after* which a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeFrom {
    /// Begin with the first event of the log.
    Start,
    /// Begin after this position, without a check that the log is the same.
    After(Position),
    /// Begin after this checkpoint. Its event is compared first, so another log is noticed.
    Checkpoint(Checkpoint),
    /// Begin after the head at the time when the subscription is made. The head is the last
    /// position that this process knows from the store. If a server with a shorter log takes the
    /// store's place, the subscription may end with [`ReadError::Diverged`].
    Now,
}

/// An endless read. It catches up page by page and then waits for new events.
///
/// A subscription to the whole log is checked for holes. Every page is checked to be of the same
/// log: by its lineage, its length, and, if nothing was read for a second, the id of the last event
/// seen. If a restored log differs only after that event, as may happen in a read of one category,
/// only its lineage shows the difference.
///
/// It is a [`Stream`] too. A subscription to the whole log or to a query leaves out system events,
/// unless [`with_system`](Self::with_system) is set. An error ends it.
///
/// ```
/// use factum_kernel::{Scope, SubscribeFrom, Subscription};
/// # use factum_testing::bank::{Account, AccountCommand};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
/// # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
/// # let accounts = factum_kernel::Repository::<Account>::new(kernel.clone());
/// let mut events = Subscription::new(&kernel, Scope::Log, SubscribeFrom::Start);
/// # let email = "ada@example.org".to_owned();
/// # accounts.execute("ada", &AccountCommand::Open { owner: "Ada".into(), email }).await?;
/// let first = events.next().await.expect("a subscription ends only with an error")?;
/// assert_eq!(first.name(), "account.opened");
/// # Ok(()) }
/// ```
#[must_use]
pub struct Subscription {
    /// `None` while a page is being read, because the read owns the reader, and after an error.
    reader: Option<Reader>,
    buffer: VecDeque<RecordedEvent>,
    pending: Option<Fetch>,
    lineage: Option<Lineage>,
    /// The checkpoint of the events returned so far. It becomes `page_end` when the buffer is
    /// empty.
    checkpoint: Option<Checkpoint>,
    page_end: Option<Checkpoint>,
}

type Fetch = Pin<Box<dyn Future<Output = (Reader, Result<Page, ReadError>)> + Send>>;

impl Subscription {
    /// A subscription to the events in this scope, beginning after `from`.
    pub fn new(kernel: &Kernel, scope: Scope, from: SubscribeFrom) -> Self {
        let store = kernel.events().clone();
        let clock = kernel.clock().clone();
        let poll = store.guarantees().poll;
        let head = store.head();
        let with_system = !hides_system(&scope);
        let after = (from == SubscribeFrom::Now).then(|| *head.borrow());
        let cursor = Cursor { from, after, lineage: None, last: None, read_at: None };
        let page_max = None;
        let reader = Reader { store, clock, head, poll, scope, with_system, page_max, cursor };
        let reader = Some(reader);
        let buffer = VecDeque::new();
        let pending = None;
        Self { reader, buffer, pending, lineage: None, checkpoint: None, page_end: None }
    }

    /// The checkpoint of the last returned event, or of a later event outside the scope.
    ///
    /// While [`next`](Self::next) waits, the checkpoint advances with the scan, at least every
    /// 1,000 positions. Store it when all returned events are handled, and resume with
    /// [`SubscribeFrom::Checkpoint`]. `None` before anything was scanned.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    /// Includes system events.
    pub fn with_system(mut self) -> Self {
        if let Some(reader) = &mut self.reader {
            reader.with_system = true;
        }
        self
    }

    /// Turns a subscription that has returned nothing yet into a read by page, for callers that
    /// need more than the events.
    ///
    /// # Panics
    /// If the subscription was read from.
    pub fn into_pages(self) -> SubscriptionPages {
        let is_fresh = self.buffer.is_empty() && self.lineage.is_none();
        let reader = self.reader.filter(|_| is_fresh);
        SubscriptionPages { reader: reader.expect("nothing has been read from it") }
    }

    /// Waits for the next event and returns it. `None` only after an error.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Result<RecordedEvent, ReadError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Subscription {
    type Item = Result<RecordedEvent, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.buffer.pop_front() {
                let handed = self.lineage.map(|lineage| Checkpoint::of(lineage, &event));
                let is_last = self.buffer.is_empty();
                self.checkpoint = if is_last { self.page_end } else { handed };
                return Poll::Ready(Some(Ok(event)));
            }
            if self.pending.is_none() {
                let Some(mut reader) = self.reader.take() else { return Poll::Ready(None) };
                self.pending = Some(Box::pin(async move {
                    let page = reader.next_page().await;
                    (reader, page)
                }));
            }
            let fetch = self.pending.as_mut().expect("just made");
            let (reader, page) = ready!(fetch.as_mut().poll(cx));
            self.pending = None;
            match page {
                Ok(page) => {
                    self.lineage = Some(page.lineage);
                    self.page_end = reader.cursor.last;
                    if page.events.is_empty() {
                        self.checkpoint = self.page_end;
                    }
                    self.buffer.extend(page.events);
                    self.reader = Some(reader);
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

/// A [`Subscription`] that returns pages instead of single events. It also returns a page in which
/// no event matched: [`Page::scanned_through`] tells how far each page was read.
///
/// ```
/// use factum_kernel::{Scope, SubscribeFrom, Subscription};
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
/// let mut pages = Subscription::new(&kernel, Scope::Log, SubscribeFrom::Start).into_pages();
/// let page = pages.next().await?;
/// assert_eq!(page.events.len(), 1);
/// assert_eq!(pages.checkpoint().map(|it| it.position), Some(page.scanned_through));
/// # Ok(()) }
/// ```
#[must_use]
pub struct SubscriptionPages {
    reader: Reader,
}

impl SubscriptionPages {
    /// Waits for the next page that scanned something and returns it. After an error, the next call
    /// reads the same page again.
    ///
    /// # Errors
    /// Those of the store; a hole in the log; another log than before.
    ///
    /// # Cancel safety
    /// Dropping the future loses no page.
    pub async fn next(&mut self) -> Result<Page, ReadError> {
        self.reader.next_page().await
    }

    /// Returns the next page that scanned something; `None` at the end of the log.
    ///
    /// # Errors
    /// The same as [`next`](Self::next).
    ///
    /// # Cancel safety
    /// Dropping the future loses no page.
    pub async fn try_next(&mut self) -> Result<Option<Page>, ReadError> {
        self.reader.try_page().await
    }

    /// The checkpoint of the last scanned event: the last event of the pages, system events
    /// included, or a later event outside the scope. It is at most 1,000 positions before the last
    /// page's `scanned_through`, unless those positions are erased.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.reader.cursor.last
    }

    /// Sets the most events and bytes of a page.
    pub fn with_page(mut self, events_max: usize, bytes_max: usize) -> Self {
        self.reader.page_max = Some((events_max, bytes_max));
        self
    }
}

impl std::fmt::Debug for SubscriptionPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubscriptionPages")
            .field("after", &self.reader.cursor.after)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("buffered", &self.buffer.len()).finish_non_exhaustive()
    }
}

struct Reader {
    store: Arc<dyn EventStore>,
    clock: Arc<dyn Clock>,
    head: watch::Receiver<Position>,
    poll: Duration,
    scope: Scope,
    with_system: bool,
    /// The most events and bytes of a page, if they are not the defaults.
    page_max: Option<(usize, usize)>,
    cursor: Cursor,
}

/// The progress of a subscription, and the log that it reads.
struct Cursor {
    from: SubscribeFrom,
    /// The last position that was scanned; `None` before the first read.
    after: Option<Position>,
    lineage: Option<Lineage>,
    /// The last event seen, returned or not. It may be outside the scope if nothing in the scope
    /// was found for a long time.
    last: Option<Checkpoint>,
    /// The time of the last read of a page.
    read_at: Option<Monotonic>,
}

impl Reader {
    /// Waits for the next page that scanned something and returns it.
    async fn next_page(&mut self) -> Result<Page, ReadError> {
        loop {
            if let Some(page) = self.try_page().await? {
                return Ok(page);
            }
            self.wait().await;
        }
    }

    /// Returns the next page that scanned something; `None` at the end of the log.
    async fn try_page(&mut self) -> Result<Option<Page>, ReadError> {
        loop {
            // Mark the head as seen before the read, so that a change during the read ends the next
            // wait.
            self.head.mark_unchanged();
            let after = match self.cursor.after {
                Some(after) => after,
                None => self.begin().await?,
            };
            let query = ReadQuery { scope: self.scope.clone(), ..ReadQuery::log() };
            let mut query = query.after(after);
            if let Some((events_max, bytes_max)) = self.page_max {
                query = query.with_events_max(events_max).with_bytes_max(bytes_max);
            }
            let mut page = self.store.read(query).await?;
            self.check(after, &page)?;
            self.look_again().await?;
            // Change the cursor only after all reads: if the caller drops the future before, the
            // next call reads the page again.
            self.cursor.last = self.last_of(&page).await?;
            self.cursor.after = Some(page.scanned_through.max(after));
            if page.scanned_through > after || !page.events.is_empty() {
                if !self.with_system {
                    page.events.retain(|event| !event.stream().is_system());
                }
                return Ok(Some(page));
            }
            if page.scanned_through >= page.head {
                return Ok(None);
            }
        }
    }

    /// The checkpoint of a page's last event. If no event matched for a long time, that of the last
    /// event that was scanned.
    async fn last_of(&self, page: &Page) -> Result<Option<Checkpoint>, ReadError> {
        let last = page.events.last().map(|event| Checkpoint::of(page.lineage, event));
        let last = last.or(self.cursor.last);
        let known = last.map_or(Position::ZERO, |last| last.position);
        let through = page.scanned_through;
        if through.value() - known.value().min(through.value()) < CHECKPOINT_STEP {
            return Ok(last);
        }
        let query = ReadQuery::log().backward().from(ReadFrom::Position(through));
        let there = self.store.read(query.with_events_max(1)).await?;
        let later = there.events.first().filter(|event| event.position() > known);
        if later.is_none() || there.lineage != page.lineage {
            return Ok(last);
        }
        Ok(later.map(|event| Checkpoint::of(page.lineage, event)))
    }

    /// Returns the position after which to begin, and checks a checkpoint against the log.
    async fn begin(&mut self) -> Result<Position, ReadError> {
        let after = match self.cursor.from {
            SubscribeFrom::Start => Position::ZERO,
            SubscribeFrom::After(position) => position,
            SubscribeFrom::Checkpoint(checkpoint) => {
                self.verify(checkpoint).await?;
                self.cursor.last = Some(checkpoint);
                self.cursor.lineage = Some(checkpoint.lineage);
                checkpoint.position
            }
            SubscribeFrom::Now => *self.head.borrow(),
        };
        self.cursor.after = Some(after);
        Ok(after)
    }

    /// Checks that the last event is still there, if another log may have replaced this one since
    /// the last page. It runs after the read of a page, so it checks the log that the page came
    /// from.
    async fn look_again(&mut self) -> Result<(), ReadError> {
        let now = self.clock.monotonic();
        let is_due = |before| now.saturating_since(before) >= LOOK_AGAIN;
        let is_due = self.cursor.read_at.is_none_or(is_due);
        if let Some(last) = self.cursor.last.filter(|_| is_due) {
            self.verify(last).await?;
        }
        // Set only now, so that a check that failed or was cancelled is due again.
        self.cursor.read_at = Some(now);
        Ok(())
    }

    async fn verify(&self, checkpoint: Checkpoint) -> Result<(), ReadError> {
        let query = ReadQuery::log().from(ReadFrom::Position(checkpoint.position));
        let page = self.store.read(query.with_events_max(1)).await?;
        Ok(checkpoint.verify(&page)?)
    }

    fn check(&mut self, after: Position, page: &Page) -> Result<(), ReadError> {
        let lineage = *self.cursor.lineage.get_or_insert(page.lineage);
        let here = Checkpoint { lineage, position: after, event_id: Default::default() };
        if page.lineage != lineage {
            let reason = DivergedReason::Lineage(page.lineage);
            return Err(Diverged { checkpoint: here, reason }.into());
        }
        let is_known = !matches!(self.cursor.from, SubscribeFrom::After(_));
        if is_known && page.head < after {
            let reason = DivergedReason::Short(page.head);
            return Err(Diverged { checkpoint: here, reason }.into());
        }
        if self.scope == Scope::Log && page.scanned_through > after {
            page.check_gapless(after.next())?;
        }
        Ok(())
    }

    /// Waits until the head moves, or for the poll interval, because the head is only a hint.
    async fn wait(&mut self) {
        tokio::select! {
            changed = self.head.changed() => {
                if changed.is_err() {
                    // The store no longer reports the head. Look for events at intervals.
                    self.clock.sleep(self.poll).await;
                }
            }
            () = self.clock.sleep(self.poll) => {}
        }
    }
}

impl Checkpoint {
    /// Checks that a page comes from the log in which this checkpoint was made. The page must have
    /// been read forward from the checkpoint's position, from the whole log.
    ///
    /// # Errors
    /// [`Diverged`], with the difference.
    pub fn verify(&self, page: &Page) -> Result<(), Diverged> {
        let diverged = |reason| Err(Diverged { checkpoint: *self, reason });
        if page.lineage != self.lineage {
            return diverged(DivergedReason::Lineage(page.lineage));
        }
        if page.head < self.position {
            return diverged(DivergedReason::Short(page.head));
        }
        match page.events.first() {
            Some(event) if event.position() == self.position && event.id() != self.event_id => {
                diverged(DivergedReason::Event(event.id()))
            }
            // An erased event can't be compared, so the equal lineage must be enough.
            _ => Ok(()),
        }
    }

    /// The checkpoint of a consumer that has handled this event.
    pub fn of(lineage: Lineage, event: &RecordedEvent) -> Self {
        Self { lineage, position: event.position(), event_id: event.id() }
    }
}
