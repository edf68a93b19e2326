//! The reading of one page.

use factum_backend::{
    Candidate, PAGE_SCANNED_MAX, PageBuilder, PageEnd, Pushed, Walk, partition_point,
};
use factum_kernel::{
    Direction, Page, Position, ReadFrom, ReadQuery, Scope, StoreError, StreamId, Timestamp,
};

use crate::{
    log::{Log, Taken, View},
    posting::{is_further, of_scope, term_count},
    record::StreamState,
    tables::Search,
};

/// Reads one page.
pub(crate) fn page(log: &Log, query: &ReadQuery) -> Result<Page, StoreError> {
    query.check()?;
    match &query.scope {
        Scope::Stream(stream) => {
            let (view, state) = log.view_with(stream)?;
            Reader::new(log, &view, query).stream_page(stream, state)
        }
        _ => {
            let view = log.view();
            Reader::new(log, &view, query).log_page()
        }
    }
}

struct Reader<'q> {
    log: &'q Log,
    view: &'q View,
    query: &'q ReadQuery,
    page: PageBuilder<'q>,
}

/// The positions that match, and the last position that was looked at; `None`: the end of the
/// read's range.
pub(crate) struct Candidates {
    pub(crate) positions: Vec<u64>,
    pub(crate) through: Option<u64>,
}

impl<'q> Reader<'q> {
    fn new(log: &'q Log, view: &'q View, query: &'q ReadQuery) -> Self {
        Self { log, view, query, page: PageBuilder::new(query) }
    }

    fn direction(&self) -> Direction {
        self.query.direction
    }

    fn log_page(mut self) -> Result<Page, StoreError> {
        let start = self.log_start()?;
        let mut next = self.is_inside(start).then_some(start);
        let mut through = None;
        let mut looks = PAGE_SCANNED_MAX;
        while let Some(from) = next {
            let query = CandidateQuery {
                scope: &self.query.scope,
                walk: Walk { from, direction: self.direction() },
                positions_max: self.page.room().max(1),
            };
            let found = candidates(self.log, self.view, &query, &mut looks)?;
            if let Some(left_out) = self.push(&found.positions)? {
                through = Some(step_back(self.direction(), left_out));
                break;
            }
            through = found.through;
            // A read that filters by origin finds less than a page, and looks further for a while.
            let goes_on = !self.page.is_full() && !found.positions.is_empty() && looks > 0;
            next = through.filter(|_| goes_on).and_then(|at| step_on(self.direction(), at));
        }
        let scanned_through = through.unwrap_or(self.end());
        let erased = match self.query.scope {
            Scope::Log => self.erased(start, scanned_through),
            _ => Vec::new(),
        };
        self.finish(scanned_through, erased, None)
    }

    fn erased(&self, start: u64, through: u64) -> Vec<factum_kernel::ErasedRange> {
        match self.direction() {
            Direction::Forward => self.view.erased.ranges(start, through),
            Direction::Backward => self.view.erased.ranges(through.max(1), start),
        }
    }

    fn stream_page(mut self, stream: &StreamId, state: StreamState) -> Result<Page, StoreError> {
        let first = state.bounds.erased_through.value() + 1;
        let last = state.bounds.version.value();
        let from = self.stream_start(stream, first, last)?;
        let from = match self.direction() {
            Direction::Forward => from.max(first),
            Direction::Backward => from.min(last),
        };
        let room = self.page.room();
        // The kept versions of a stream have no gaps, so they can be counted.
        let limit = match self.direction() {
            Direction::Forward => room,
            Direction::Backward => room.min(count_between(first, from)),
        };
        let positions = self.stream_positions(stream, from, limit)?;
        let through = match self.push(&positions)? {
            Some(left_out) => Some(step_back(self.direction(), left_out)),
            None => positions.last().copied().filter(|_| positions.len() == room),
        };
        let through = through.unwrap_or(self.end());
        self.finish(through, Vec::new(), Some(state))
    }

    fn stream_positions(
        &self,
        stream: &StreamId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<u64>, StoreError> {
        let Self { log, view, .. } = self;
        let direction = self.direction();
        let tables = &view.tables;
        let mut found =
            tables.stream_positions(&log.cache, stream.as_str(), from, direction, limit)?;
        // Events that were appended since the view was taken are not part of the page's moment.
        found.retain(|position| *position <= view.head);
        Ok(found)
    }

    /// The position of the event at a version, or else of the next event of the stream.
    fn stream_place(&self, stream: &StreamId, version: u64) -> Result<Option<u64>, StoreError> {
        let cache = &self.log.cache;
        let tables = &self.view.tables;
        let stream = stream.as_str();
        let forward = Direction::Forward;
        let found = tables.stream_positions(cache, stream, version, forward, 1)?;
        Ok(found.first().copied().filter(|position| *position <= self.view.head))
    }

    /// Offers events to the page. Returns the first position that was not taken.
    fn push(&mut self, positions: &[u64]) -> Result<Option<u64>, StoreError> {
        let direction = self.query.direction;
        let page = &mut self.page;
        page.reserve(positions.len());
        self.log.read_events(self.view, positions, direction, |event, name| {
            Ok(match page.push(event.header, &event.parts(name))? {
                Pushed::Taken => Taken::More,
                Pushed::Full => Taken::Full,
            })
        })
    }

    fn finish(
        self,
        through: u64,
        erased: Vec<factum_kernel::ErasedRange>,
        state: Option<StreamState>,
    ) -> Result<Page, StoreError> {
        let Self { view, page, .. } = self;
        Ok(page.finish(PageEnd {
            scanned_through: Position::new(through),
            head: Position::new(view.head),
            lineage: view.lineage,
            erased,
            bounds: state.map(|state| state.bounds),
        }))
    }

    /// The last position that a read to the end looks at.
    fn end(&self) -> u64 {
        match self.direction() {
            Direction::Forward => self.view.head,
            Direction::Backward => 0,
        }
    }

    fn is_inside(&self, position: u64) -> bool {
        (1..=self.view.head).contains(&position)
    }

    /// The first position to look at, within the ends of the log.
    fn log_start(&self) -> Result<u64, StoreError> {
        let head = self.view.head;
        let forward = self.direction() == Direction::Forward;
        Ok(match self.query.from {
            ReadFrom::Start if forward => 1,
            ReadFrom::Start => 0,
            ReadFrom::End if forward => head + 1,
            ReadFrom::End => head,
            ReadFrom::Position(position) if forward => position.value().max(1),
            ReadFrom::Position(position) => position.value().min(head),
            ReadFrom::Time(time) => {
                // An erased event keeps its position, and gets a time between those of its
                // neighbours.
                let after = partition_point(1, head + 1, |position| self.is_past(position, time))?;
                if forward { after } else { after - 1 }
            }
            ReadFrom::Version(_) => {
                return Err(StoreError::invalid("only a stream can be read from a version"));
            }
        })
    }

    fn is_past(&self, position: u64, time: Timestamp) -> Result<bool, StoreError> {
        let there = self.log.recorded_at(self.view, position)?;
        Ok(match self.direction() {
            Direction::Forward => there >= time,
            Direction::Backward => there > time,
        })
    }

    /// The first version to look at.
    fn stream_start(&self, stream: &StreamId, first: u64, last: u64) -> Result<u64, StoreError> {
        let forward = self.direction() == Direction::Forward;
        let after = match self.query.from {
            ReadFrom::Start => return Ok(u64::from(forward)),
            ReadFrom::End => return Ok(if forward { last + 1 } else { last }),
            ReadFrom::Version(version) => return Ok(version.value()),
            ReadFrom::Position(asked) => partition_point(first, last + 1, |version| {
                let place = self.stream_place(stream, version)?;
                let asked = asked.value();
                Ok::<_, StoreError>(
                    place.is_none_or(|at| if forward { at >= asked } else { at > asked }),
                )
            })?,
            ReadFrom::Time(time) => partition_point(first, last + 1, |version| {
                match self.stream_place(stream, version)? {
                    None => Ok(true),
                    Some(position) => self.is_past(position, time),
                }
            })?,
        };
        Ok(if forward { after } else { after - 1 })
    }
}

/// The number of versions from one to another, both included.
fn count_between(first: u64, last: u64) -> usize {
    usize::try_from((last + 1).saturating_sub(first)).unwrap_or(usize::MAX)
}

/// A search for the next positions that match a scope.
pub(crate) struct CandidateQuery<'s> {
    pub(crate) scope: &'s Scope,
    pub(crate) walk: Walk,
    pub(crate) positions_max: usize,
}

/// The positions of a search, none of them erased. Each look into the index takes one of `looks`.
/// When none is left, the search ends, with progress of at least one position.
pub(crate) fn candidates(
    log: &Log,
    view: &View,
    query: &CandidateQuery<'_>,
    looks: &mut usize,
) -> Result<Candidates, StoreError> {
    let CandidateQuery { scope, walk, positions_max } = *query;
    let Walk { from, direction } = walk;
    let mut found = Candidates { positions: Vec::new(), through: None };
    let mut next = from;
    let terms = term_count(scope);
    view.tables.each_source(&log.cache, from, direction, |source| {
        let (first, last) = source.range();
        next = match direction {
            Direction::Forward => next.max(first),
            Direction::Backward => next.min(last),
        };
        if *looks == 0 && next != from {
            found.through = Some(step_back(direction, next));
            return Ok(Search::Done);
        }
        *looks = looks.saturating_sub(terms);
        let mut matches = of_scope(source, scope, Walk { from: next, direction })?;
        while let Some(candidate) = matches.seek(next, looks)? {
            let (Candidate::Match(position) | Candidate::Paused(position)) = candidate;
            if is_further(position, view.head, Direction::Forward) {
                return Ok(Search::Done);
            }
            if candidate == Candidate::Paused(position) {
                found.through = Some(step_back(direction, position));
                return Ok(Search::Done);
            }
            if !view.erased.contains(position) {
                found.positions.push(position);
            }
            if found.positions.len() == positions_max || *looks == 0 {
                found.through = Some(position);
                return Ok(Search::Done);
            }
            let Some(on) = step_on(direction, position) else { return Ok(Search::Done) };
            next = on;
        }
        Ok(Search::More)
    })?;
    Ok(found)
}

/// The next position in the read's direction, if there is one.
fn step_on(direction: Direction, position: u64) -> Option<u64> {
    match direction {
        Direction::Forward => Some(position + 1),
        Direction::Backward => (position > 1).then(|| position - 1),
    }
}

/// The previous position in the read's direction.
fn step_back(direction: Direction, position: u64) -> u64 {
    match direction {
        Direction::Forward => position - 1,
        Direction::Backward => position + 1,
    }
}

#[cfg(test)]
mod tests;
