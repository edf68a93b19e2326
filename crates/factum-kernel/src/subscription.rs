//! An endless read: what is there, and then what comes.

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

/// When nothing was read for so long, the last event is looked at again. What puts another log in a
/// store's place, a server that is restored for instance, takes longer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How far a subscription scans, with nothing found, before its checkpoint moves on: so many
/// positions are scanned again by one that begins there. Each such step is a read of one event.
const CHECKPOINT_STEP: u64 = 1_000;

/// Where a subscription begins: always *after* what is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeFrom {
    /// The first event there is.
    Start,
    /// After this position, whatever log it is.
    After(Position),
    /// After this checkpoint, whose event is looked at first: another log is noticed.
    Checkpoint(Checkpoint),
    /// What comes after the subscription was made, as far as this process knows the head: the last
    /// position that the store answered. Where a server with a shorter log took its place since,
    /// the subscription may end with [`ReadError::Diverged`].
    Now,
}

/// An endless read. It catches up page by page and then waits; a subscription to the whole log
/// is checked for holes, and every page for being of the same log: its lineage, its length, and,
/// when nothing was read for a second, the id of the last event seen. What a log was restored to
/// behind that event, in a category for instance, is found by its lineage alone.
///
/// It is a [`Stream`] too. Of the whole log or a query it leaves out the system's own events,
/// unless asked. After an error it is over.
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
    /// At home between two pages, away while one is fetched.
    reader: Option<Reader>,
    buffer: VecDeque<RecordedEvent>,
    pending: Option<Fetch>,
    lineage: Option<Lineage>,
    /// Where everything before was handed out, and where it is when the buffer is empty.
    checkpoint: Option<Checkpoint>,
    page_end: Option<Checkpoint>,
}

type Fetch = Pin<Box<dyn Future<Output = (Reader, Result<Page, ReadError>)> + Send>>;

impl Subscription {
    /// Everything in this scope from there on.
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

    /// How far it has come: the last event that it handed out, or a later one that is not meant.
    /// It moves on with what is scanned while [`next`](Self::next) waits, at least each 1,000
    /// positions. To be kept when all that was handed out is handled, and given to
    /// [`SubscribeFrom::Checkpoint`] later. `None` before anything was scanned.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    /// The system's own events too.
    pub fn with_system(mut self) -> Self {
        if let Some(reader) = &mut self.reader {
            reader.with_system = true;
        }
        self
    }

    /// The same read by the page, for those who keep up with more than events. Of a subscription
    /// that has handed out nothing yet.
    ///
    /// # Panics
    /// If it has been read from.
    pub fn into_pages(self) -> SubscriptionPages {
        let is_fresh = self.buffer.is_empty() && self.lineage.is_none();
        let reader = self.reader.filter(|_| is_fresh);
        SubscriptionPages { reader: reader.expect("nothing has been read from it") }
    }

    /// The next event; waits for it. `None` only after an error.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
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

/// A [`Subscription`] by the page: also those that bring no events, but say how far was scanned.
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
    /// The next page that scanned something; waits for it. After an error, what follows is read
    /// again.
    ///
    /// # Errors
    /// Those of the store; a hole; another log than before.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
    pub async fn next(&mut self) -> Result<Page, ReadError> {
        self.reader.next_page().await
    }

    /// The next page that scanned something; `None`: the log ends here.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
    pub async fn try_next(&mut self) -> Result<Option<Page>, ReadError> {
        self.reader.try_page().await
    }

    /// How far it has scanned: the last event of its pages, the system's own included, or a later
    /// one that is not meant. It is at most 1,000 positions before the last page's
    /// `scanned_through`, unless those are erased.
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
    /// Events and bytes, where they are not the defaults.
    page_max: Option<(usize, usize)>,
    cursor: Cursor,
}

/// How far a subscription has come, and in which log.
struct Cursor {
    from: SubscribeFrom,
    /// The last position that was scanned; `None` before the beginning was looked at.
    after: Option<Position>,
    lineage: Option<Lineage>,
    /// The last event seen, handed out or not; of another scope where nothing was found for long.
    last: Option<Checkpoint>,
    /// When a page was last read.
    read_at: Option<Monotonic>,
}

impl Reader {
    /// The next page that scanned something.
    async fn next_page(&mut self) -> Result<Page, ReadError> {
        loop {
            if let Some(page) = self.try_page().await? {
                return Ok(page);
            }
            self.wait().await;
        }
    }

    /// The next page that scanned something; `None`: the log ends here.
    async fn try_page(&mut self) -> Result<Option<Page>, ReadError> {
        loop {
            // Seen before the read, so that what comes during it wakes the wait behind it.
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
            // All reads are done before anything is noted: the page is lost to nobody who stops
            // waiting.
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

    /// The last event of a page; where nothing was found for long, the last one that was scanned.
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

    /// Where to begin, after a look at the log that is there.
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

    /// Looks whether the last event is still there, if another log may have come in its place since
    /// the last page. After the page was read, so that the log is the one that this page is from.
    async fn look_again(&mut self) -> Result<(), ReadError> {
        let now = self.clock.monotonic();
        let is_due = |before| now.saturating_since(before) >= LOOK_AGAIN;
        let is_due = self.cursor.read_at.is_none_or(is_due);
        if let Some(last) = self.cursor.last.filter(|_| is_due) {
            self.verify(last).await?;
        }
        // Not before: a look that failed or was given up is due again.
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

    /// Until the head moves, or a while has passed: the head is a hint.
    async fn wait(&mut self) {
        tokio::select! {
            changed = self.head.changed() => {
                if changed.is_err() {
                    // Nobody tells of the head any more; what remains is to look now and then.
                    self.clock.sleep(self.poll).await;
                }
            }
            () = self.clock.sleep(self.poll) => {}
        }
    }
}

impl Checkpoint {
    /// Checks that the log a page came from is the one this checkpoint is from. The page must
    /// have been read forward from the checkpoint's position, of the whole log.
    ///
    /// # Errors
    /// [`Diverged`], with what was found instead.
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
            // An erased event can't be compared; the lineage is the same, and that has to do.
            _ => Ok(()),
        }
    }

    /// The checkpoint of having handled this event of a page.
    pub fn of(lineage: Lineage, event: &RecordedEvent) -> Self {
        Self { lineage, position: event.position(), event_id: event.id() }
    }
}
