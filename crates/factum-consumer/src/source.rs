//! Where a consumer's events come from: pages of its own until it has come to the end of the log,
//! then the tail that all share.

mod ahead;
mod shared;

use std::{ops::Range, sync::Arc};

use factum_kernel::{
    Checkpoint, Diverged, DivergedReason, Kernel, Lineage, Page, Position, ReadError, ReadFrom,
    ReadQuery, RecordedEvent, Scope, StreamId, StreamVersion, SubscribeFrom, Subscription,
    SubscriptionPages,
};
use tokio::sync::{Semaphore, broadcast};

use self::ahead::Ahead;
pub(crate) use self::shared::SharedPages;
use crate::tail::{Tail, Tailed};

/// What all consumers of a program read through.
#[derive(Debug, Clone)]
pub struct Reading {
    /// What it is read from.
    pub kernel: Kernel,
    pub(crate) tail: Arc<Tail>,
    /// Bounds how many read pages of their own at a time.
    pub(crate) catching_up: Arc<Semaphore>,
    /// Where partitions read pages of their own; none: in the kernel itself.
    pub(crate) shared: Option<Arc<SharedPages>>,
}

/// The events of one consumer, in order, none left out.
#[derive(Debug)]
pub struct Source {
    reading: Reading,
    scope: Scope,
    page_max: (usize, usize),
    /// Where it is.
    after: Position,
    /// The last event it has seen.
    last: Option<Checkpoint>,
    /// The log that it reads, and how far that reached.
    seen: Option<(Lineage, Position)>,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    /// To be read by pages of its own.
    Behind,
    /// Listening to the tail since it was near the end.
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
    /// Everything up to here is in it or before it.
    pub through: Position,
}

impl Chunk {
    /// A whole page.
    pub fn of(page: Page) -> Self {
        let range = 0..page.events.len();
        let through = page.scanned_through;
        Self { page: Arc::new(page), range, through }
    }

    /// Its events.
    pub fn events(&self) -> &[RecordedEvent] {
        &self.page.events[self.range.clone()]
    }

    /// Where the log ended when it was read.
    pub fn head(&self) -> Position {
        self.page.head
    }

    /// A checkpoint after one of its events.
    pub fn checkpoint(&self, event: &RecordedEvent) -> Checkpoint {
        Checkpoint::of(self.page.lineage, event)
    }

    /// Its first events, and what is left.
    pub fn split(self, count: usize) -> (Self, Option<Self>) {
        let middle = self.range.start + count.min(self.range.len());
        if middle == self.range.end {
            return (self, None);
        }
        let through = self.page.events[middle].position().previous();
        let rest = Self { range: middle..self.range.end, ..self.clone() };
        (Self { range: self.range.start..middle, through, page: self.page }, Some(rest))
    }
}

/// Whether a consumer of this scope is about an event.
pub fn is_in_scope(scope: &Scope, event: &RecordedEvent) -> bool {
    let stream = event.stream();
    match scope {
        Scope::Log => !stream.is_system(),
        Scope::Stream(id) => stream == id.as_ref(),
        Scope::Category(category) => stream.category() == category.as_str(),
        Scope::Query(query) => !stream.is_system() && query.matches(event.name(), event.tags()),
    }
}

/// The next event of a parked stream, from a version on, that the consumer has passed.
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

impl Source {
    /// Events of a scope, at most so many and so many bytes at a time, after a checkpoint or else
    /// a position.
    pub fn new(
        reading: Reading,
        scope: Scope,
        page_max: (usize, usize),
        from: Result<Checkpoint, Position>,
    ) -> Self {
        let (after, last) = match from {
            Ok(checkpoint) => (checkpoint.position, Some(checkpoint)),
            Err(position) => (position, None),
        };
        let seen = last.map(|last| (last.lineage, last.position));
        Self { reading, scope, page_max, after, last, seen, mode: Mode::Behind }
    }

    /// What comes next; waits for it. `None`: it has turned to the tail, or away from it.
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
                        // It follows the tail only if this page was read while it listened
                        // already: what the tail had sent before is in the page then.
                        match tail.take() {
                            Some(tail) => self.mode = Mode::Live(tail),
                            None => *tail = Some(self.reading.tail.listen()),
                        }
                    } else {
                        // Not at the end: what is read next may listen to the tail before.
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
                    // Too late for the tail, or it can't go on.
                    Ok(_) | Err(_) => {
                        self.mode = Mode::Behind;
                        return Ok(None);
                    }
                },
            }
        }
    }

    /// Looks whether the log is still the one that was read so far.
    ///
    /// # Errors
    /// Those of the store; another log.
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
            // Scanned again from there, so that another log is noticed.
            Some(last) if last.position == self.after || self.scope == Scope::Log => {
                SubscribeFrom::Checkpoint(last)
            }
            // What lies between is known to be none of this scope's.
            _ => SubscribeFrom::After(self.after),
        };
        let (events_max, bytes_max) = self.page_max;
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
        let start = page.events.partition_point(|event| event.position() <= self.after);
        if let Some(event) = page.events.last() {
            self.last = Some(Checkpoint::of(page.lineage, event));
        }
        self.after = page.scanned_through.max(self.after);
        let seen = self.seen.map_or(page.head, |(_, head)| head.max(page.head));
        self.seen = Some((page.lineage, seen));
        Ok(Chunk { range: start..page.events.len(), through: self.after, page })
    }

    /// Whether it has come to the end of the log once, and follows it.
    pub fn is_live(&self) -> bool {
        matches!(self.mode, Mode::Live(_))
    }
}
