//! The source of a consumer's events: pages of its own until the consumer reaches the end of the
//! log, then the tail that all consumers share.

mod ahead;
mod shared;

use std::{ops::Range, sync::Arc};

use factum_kernel::{
    Checkpoint, Diverged, DivergedReason, EventName, Kernel, Lineage, Page, Position,
    QUERY_ITEMS_MAX, Query, QueryItem, ReadError, ReadFrom, ReadQuery, RecordedEvent, Scope,
    StreamId, StreamVersion, SubscribeFrom, Subscription, SubscriptionPages,
};
use tokio::sync::{Semaphore, broadcast};

use self::ahead::Ahead;
pub(crate) use self::shared::SharedPages;
use crate::tail::{Tail, Tailed};

/// The readers that all consumers of a program share.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The kernel whose log is read.
    pub kernel: Kernel,
    pub(crate) tail: Arc<Tail>,
    /// The permits that limit how many consumers read pages of their own at the same time.
    pub(crate) catching_up: Arc<Semaphore>,
    /// The pages that the partitions of a consumer share; `None` reads from the kernel's store.
    pub(crate) shared: Option<Arc<SharedPages>>,
}

/// The events of one consumer, in log order and without a gap.
#[derive(Debug)]
pub struct Source {
    reading: Reading,
    scope: Scope,
    page_max: PageMax,
    /// The position up to which the source has read.
    after: Position,
    /// The last event that the source has read.
    last: Option<Checkpoint>,
    /// The lineage of the log, and the log's last known end.
    seen: Option<(Lineage, Position)>,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    /// The source is to read pages of its own next.
    Behind,
    /// The source reads pages of its own. Near the log's end it also listens to the tail.
    Own {
        pages: Ahead,
        tail: Option<broadcast::Receiver<Tailed>>,
    },
    Live(broadcast::Receiver<Tailed>),
}

/// A part of a page.
#[derive(Debug, Clone)]
pub struct Chunk {
    page: Arc<Page>,
    range: Range<usize>,
    /// Every event up to here is before the chunk.
    pub(crate) after: Position,
    /// Every event up to here is in the chunk or before it.
    pub through: Position,
}

impl Chunk {
    /// The chunk of a whole page of a stream.
    fn of(page: Page) -> Self {
        let range = 0..page.events.len();
        let after = Position::ZERO;
        let through = page.scanned_through;
        Self { page: Arc::new(page), range, after, through }
    }

    /// The events of the chunk.
    pub fn events(&self) -> &[RecordedEvent] {
        &self.page.events[self.range.clone()]
    }

    /// The end of the log when the page was read.
    pub fn head(&self) -> Position {
        self.page.head
    }

    /// The checkpoint at one of the chunk's events.
    pub fn checkpoint(&self, event: &RecordedEvent) -> Checkpoint {
        Checkpoint::of(self.page.lineage, event)
    }

    /// Splits the chunk into its first `count` events and the rest.
    pub fn split(self, count: usize) -> (Self, Option<Self>) {
        let middle = self.range.start + count.min(self.range.len());
        if middle == self.range.end {
            return (self, None);
        }
        let through = self.page.events[middle].position().previous();
        let rest = Self { range: middle..self.range.end, after: through, ..self.clone() };
        (Self { range: self.range.start..middle, through, ..self }, Some(rest))
    }
}

/// The scope with the deletions of all streams: streams whose events match a query may be among
/// them. If the query has no room for them, the whole log.
pub(crate) fn with_deletions(scope: &Scope) -> Scope {
    let Scope::Query(query) = scope else { return scope.clone() };
    let mut items = query.items().to_vec();
    let deleted = EventName::STREAM_DELETED;
    if items.len() < QUERY_ITEMS_MAX {
        items.push(QueryItem { types: vec![deleted], tags: vec![] });
        return Scope::Query(Query::new(items));
    }
    let has_room = |item: &&mut QueryItem| {
        item.tags.is_empty() && (1..QUERY_ITEMS_MAX).contains(&item.types.len())
    };
    match items.iter_mut().find(has_room) {
        Some(item) => item.types.push(deleted),
        None => return Scope::Log,
    }
    Scope::Query(Query::new(items))
}

/// The next event of a parked stream at or after `version` that is not after the consumer's
/// checkpoint.
pub async fn next_parked(
    kernel: &Kernel,
    checkpoint: Option<Checkpoint>,
    stream: &StreamId,
    version: StreamVersion,
) -> Result<Option<Chunk>, ReadError> {
    let Some(checkpoint) = checkpoint else { return Ok(None) };
    let query = ReadQuery::stream(stream.clone()).from(ReadFrom::Version(version));
    let page = kernel.events().read(query.with_events_max(1)).await?;
    if page.lineage != checkpoint.lineage {
        let reason = DivergedReason::Lineage(page.lineage);
        return Err(Diverged { checkpoint, reason }.into());
    }
    let event = page.events.first().map(RecordedEvent::position);
    let is_passed = event.is_some_and(|position| position <= checkpoint.position);
    Ok(is_passed.then(|| Chunk::of(page)))
}

/// The most events and the most bytes of a page.
#[derive(Debug, Clone, Copy)]
pub struct PageMax {
    /// The most events.
    pub events: usize,
    /// The most bytes.
    pub bytes: usize,
}

impl Source {
    /// The source of the events of a scope, after a checkpoint or else a position.
    pub fn new(
        reading: Reading,
        scope: Scope,
        page_max: PageMax,
        from: Result<Checkpoint, Position>,
    ) -> Self {
        let (after, last) = match from {
            Ok(checkpoint) => (checkpoint.position, Some(checkpoint)),
            Err(position) => (position, None),
        };
        let seen = last.map(|last| (last.lineage, last.position));
        Self { reading, scope, page_max, after, last, seen, mode: Mode::Behind }
    }

    /// The next chunk; waits for it. `None` if the source has switched to the tail, or away from
    /// it.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
    pub async fn next(&mut self) -> Result<Option<Chunk>, ReadError> {
        loop {
            match &mut self.mode {
                Mode::Behind => {
                    self.verify().await?;
                    let pages = Ahead::new(self.own_pages(), self.reading.catching_up.clone());
                    self.mode = Mode::Own { pages, tail: None };
                }
                Mode::Own { pages, tail } => {
                    let page = match pages.next().await {
                        Ok(page) => page,
                        Err(error) => {
                            self.mode = Mode::Behind;
                            return Err(error);
                        }
                    };
                    if page.as_ref().is_none_or(|page| page.scanned_through >= page.head) {
                        // The source follows the tail only if it listened already while this page
                        // was read: the page then holds everything that the tail had sent before.
                        match tail.take() {
                            Some(tail) => self.mode = Mode::Live(tail),
                            None => *tail = Some(self.reading.tail.listen()),
                        }
                    } else {
                        // This is not the log's end. The next page can be read before the source
                        // listens to the tail.
                        pages.begin();
                    }
                    if let Some(page) = page {
                        return self.accept(Arc::new(page)).map(Some);
                    }
                    if self.is_live() {
                        return Ok(None);
                    }
                }
                Mode::Live(tail) => match tail.recv().await {
                    Ok(Tailed::Began(after)) if after <= self.after => {}
                    Ok(Tailed::Page { page, .. }) if page.scanned_through <= self.after => {}
                    Ok(Tailed::Page { page, after }) if after <= self.after => {
                        return self.accept(page).map(Some);
                    }
                    // The source has missed pages of the tail, or the tail has failed.
                    Ok(_) | Err(_) => {
                        self.mode = Mode::Behind;
                        return Ok(None);
                    }
                },
            }
        }
    }

    /// Checks that the log is still the one that was read so far.
    ///
    /// # Errors
    /// Errors of the store; [`ReadError::Diverged`] if the log is another one.
    pub async fn verify(&self) -> Result<(), ReadError> {
        let Some((_, through)) = self.seen else { return Ok(()) };
        let at = self.last.map_or(self.after, |last| last.position);
        let query = ReadQuery::log().from(ReadFrom::Position(at)).with_events_max(1);
        let page = self.reading.kernel.events().read(query).await?;
        if let Some(last) = self.last {
            last.verify(&page)?;
        }
        self.check_lineage(&page)?;
        if page.head < through {
            return Err(self.diverged(DivergedReason::Short(page.head)));
        }
        Ok(())
    }

    fn check_lineage(&self, page: &Page) -> Result<(), ReadError> {
        match self.seen {
            Some((lineage, _)) if lineage != page.lineage => {
                Err(self.diverged(DivergedReason::Lineage(page.lineage)))
            }
            _ => Ok(()),
        }
    }

    fn diverged(&self, reason: DivergedReason) -> ReadError {
        let lineage = self.seen.map_or(Lineage::new(Default::default()), |(lineage, _)| lineage);
        let here = Checkpoint { lineage, position: self.after, event_id: Default::default() };
        Diverged { checkpoint: self.last.unwrap_or(here), reason }.into()
    }

    fn own_pages(&self) -> SubscriptionPages {
        let from = match self.last {
            // Read from the last event, so that another log is noticed.
            Some(last) if last.position == self.after || self.scope == Scope::Log => {
                SubscribeFrom::Checkpoint(last)
            }
            // The events between are known to be outside the scope.
            _ => SubscribeFrom::After(self.after),
        };
        let PageMax { events: events_max, bytes: bytes_max } = self.page_max;
        let kernel = self.reading.kernel.clone();
        let kernel = match &self.reading.shared {
            Some(shared) => kernel.with_events(shared.clone()),
            None => kernel,
        };
        Subscription::new(&kernel, self.scope.clone(), from)
            .with_system()
            .into_pages()
            .with_page(events_max, bytes_max)
    }

    fn accept(&mut self, page: Arc<Page>) -> Result<Chunk, ReadError> {
        self.check_lineage(&page)?;
        let after = self.after;
        let start = page.events.partition_point(|event| event.position() <= after);
        let positions = page.events.iter().map(RecordedEvent::position);
        assert!(
            positions.is_sorted_by(|left, right| left < right)
                && page.events.last().is_none_or(|it| it.position() <= page.scanned_through),
            "a page is in the order of the log, and within its end: after={after} end={}",
            page.scanned_through
        );
        if let Some(event) = page.events.last() {
            self.last = Some(Checkpoint::of(page.lineage, event));
        }
        self.after = page.scanned_through.max(after);
        let seen = self.seen.map_or(page.head, |(_, head)| head.max(page.head));
        self.seen = Some((page.lineage, seen));
        Ok(Chunk { range: start..page.events.len(), after, through: self.after, page })
    }

    /// True if the source has reached the end of the log and follows the tail.
    pub fn is_live(&self) -> bool {
        matches!(self.mode, Mode::Live(_))
    }
}

#[cfg(test)]
mod tests;
