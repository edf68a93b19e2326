//! Lookups of terms, streams and places in one run.

use std::ops::RangeInclusive;

use factum_kernel::{Direction, StoreError};

use crate::{
    cache::Cache,
    chunk::{self, Places},
    key::{self, Term, TermKey},
    number,
    posting::{List, TermSource},
    record::{StreamState, take_state},
    run::{Entry, Run},
    segment::Names,
};

/// A run, with the cache through which its blocks are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunReader<'r> {
    pub(crate) run: &'r Run,
    pub(crate) cache: &'r Cache,
}

impl<'r> RunReader<'r> {
    /// The state of a stream at the end of the run; `None` if the run has nothing of the stream.
    pub(crate) fn state(&self, stream: &str) -> Result<Option<StreamState>, StoreError> {
        let term = Term::Stream(stream).key();
        if !self.run.may_hold(term.as_bytes()) {
            return Ok(None);
        }
        let Some(entry) = self.run.at(self.cache, &term.at(0))? else { return Ok(None) };
        take_state(&mut entry.value()).map(Some).ok_or_else(|| self.damaged())
    }

    /// Returns whether [`Self::state`] must read the disk.
    pub(crate) fn needs_disk(&self, stream: &str) -> bool {
        let term = Term::Stream(stream).key();
        self.run.may_hold(term.as_bytes()) && !self.run.is_cached(self.cache, &term.at(0))
    }

    /// Up to `limit` positions of a stream, from a version on, in the read's direction.
    pub(crate) fn stream_positions(
        &self,
        stream: &str,
        from: u64,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<u64>, StoreError> {
        let term = Term::Stream(stream).key();
        let mut found = Vec::new();
        if !self.run.may_hold(term.as_bytes()) {
            return Ok(found);
        }
        let mut next = self.chunk_near(&term, from.max(1), direction)?;
        while let Some((first, positions)) = next.take() {
            let last = first + positions.len() as u64 - 1;
            match direction {
                Direction::Forward => {
                    let skipped = from.saturating_sub(first) as usize;
                    found.extend(positions.into_iter().skip(skipped));
                    if found.len() < limit {
                        next = self.chunk_after(&term, last + 1)?;
                    }
                }
                Direction::Backward => {
                    let skipped = last.saturating_sub(from) as usize;
                    found.extend(positions.into_iter().rev().skip(skipped));
                    if found.len() < limit && first > 1 {
                        next = self.chunk_before(&term, first - 1)?;
                    }
                }
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// The positions of those events of a stream that have these versions and are in the run.
    pub(crate) fn positions_between(
        &self,
        stream: &str,
        versions: RangeInclusive<u64>,
    ) -> Result<Vec<u64>, StoreError> {
        let term = Term::Stream(stream).key();
        let mut found = Vec::new();
        if !self.run.may_hold(term.as_bytes()) {
            return Ok(found);
        }
        let mut next = self.chunk_near(&term, (*versions.start()).max(1), Direction::Forward)?;
        while let Some((first, positions)) = next.take().filter(|it| it.0 <= *versions.end()) {
            let after = first + positions.len() as u64;
            let numbered = (first..after).zip(positions);
            found.extend(numbered.filter(|it| versions.contains(&it.0)).map(|it| it.1));
            next = self.chunk_after(&term, after)?;
        }
        Ok(found)
    }

    /// The chunk that holds a number, or else the next chunk in the direction.
    fn chunk_near(
        &self,
        term: &TermKey,
        number: u64,
        direction: Direction,
    ) -> Result<Option<(u64, Vec<u64>)>, StoreError> {
        let before = self.chunk_before(term, number)?;
        if direction == Direction::Backward {
            return Ok(before);
        }
        match before {
            Some((first, positions)) if first + positions.len() as u64 > number => {
                Ok(Some((first, positions)))
            }
            _ => self.chunk_after(term, number),
        }
    }

    /// The last chunk that begins at or before a number.
    fn chunk_before(
        &self,
        term: &TermKey,
        number: u64,
    ) -> Result<Option<(u64, Vec<u64>)>, StoreError> {
        let entry = self.run.at_or_before(self.cache, &term.at(number))?;
        self.chunk(term, entry)
    }

    /// The first chunk that begins at or after a number.
    fn chunk_after(
        &self,
        term: &TermKey,
        number: u64,
    ) -> Result<Option<(u64, Vec<u64>)>, StoreError> {
        let entry = self.run.at_or_after(self.cache, &term.at(number))?;
        self.chunk(term, entry)
    }

    fn chunk(
        &self,
        term: &TermKey,
        entry: Option<Entry>,
    ) -> Result<Option<(u64, Vec<u64>)>, StoreError> {
        let Some(entry) = entry.filter(|entry| term.is_of(entry.key())) else { return Ok(None) };
        // Number 0 is the state of a stream, not the positions of its events.
        let Some((_, first @ 1..)) = key::split(entry.key()) else { return Ok(None) };
        let positions = chunk::decode(entry.value()).filter(|positions| !positions.is_empty());
        Ok(Some((first, positions.ok_or_else(|| self.damaged())?)))
    }

    /// The chunk of places that holds a position: the position of its first event, and the places.
    pub(crate) fn places(&self, position: u64) -> Result<(u64, Places), StoreError> {
        let entry = self.run.at_or_before(self.cache, &key::places(position))?;
        let found = entry.and_then(|entry| {
            let first = key::number_of(entry.key()).filter(|_| entry.key()[0] == b'p')?;
            let places = Places::decode(entry.value())?;
            (position - first < places.offsets.len() as u64 - 1).then_some((first, places))
        });
        found.ok_or_else(|| self.damaged())
    }

    /// The names of a segment's event types.
    pub(crate) fn names(&self, segment: u64) -> Result<Names, StoreError> {
        let entry = self.run.at(self.cache, &key::names(segment))?;
        entry.and_then(|entry| decode_names(entry.value())).ok_or_else(|| self.damaged())
    }

    fn damaged(&self) -> StoreError {
        self.run.damaged(0)
    }
}

/// Encodes names as the value of an index entry.
pub(crate) fn encode_names(names: &Names) -> Vec<u8> {
    let mut out = Vec::new();
    for name in names {
        number::put(&mut out, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
    }
    out
}

fn decode_names(mut bytes: &[u8]) -> Option<Names> {
    let mut names = Names::new();
    while !bytes.is_empty() {
        let len = number::take_len(&mut bytes)?;
        names.push(std::str::from_utf8(number::take_bytes(&mut bytes, len)?).ok()?.into());
    }
    Some(names)
}

impl TermSource for RunReader<'_> {
    fn list(&self, term: Term<'_>) -> Option<List<'_>> {
        let term = term.key();
        let is_possible = self.run.may_hold(term.as_bytes());
        is_possible.then(|| List::Chunks(Chunks { reader: *self, term, chunk: Vec::new() }))
    }

    fn range(&self) -> (u64, u64) {
        (self.run.header.first, self.run.header.last)
    }
}

/// The positions of a term, read one chunk at a time.
pub(crate) struct Chunks<'r> {
    reader: RunReader<'r>,
    term: TermKey,
    chunk: Vec<u64>,
}

impl Chunks<'_> {
    fn load(&mut self, from: u64, direction: Direction) -> Result<(), StoreError> {
        let before = self.reader.chunk_before(&self.term, from)?;
        let found = match direction {
            Direction::Backward => before,
            Direction::Forward => match before {
                Some((_, positions)) if positions.last() >= Some(&from) => Some((0, positions)),
                _ => self.reader.chunk_after(&self.term, from.saturating_add(1))?,
            },
        };
        self.chunk = found.map_or_else(Vec::new, |(_, positions)| positions);
        Ok(())
    }

    fn nearest(&self, from: u64, direction: Direction) -> Option<u64> {
        match direction {
            Direction::Forward => {
                self.chunk.get(self.chunk.partition_point(|at| *at < from)).copied()
            }
            Direction::Backward => {
                let after = self.chunk.partition_point(|at| *at <= from);
                after.checked_sub(1).map(|index| self.chunk[index])
            }
        }
    }
}

impl Chunks<'_> {
    pub(crate) fn seek(
        &mut self,
        from: u64,
        direction: Direction,
    ) -> Result<Option<u64>, StoreError> {
        let covers = self.chunk.first().is_some_and(|first| *first <= from)
            && self.chunk.last().is_some_and(|last| from <= *last);
        if !covers {
            self.load(from, direction)?;
        }
        Ok(self.nearest(from, direction))
    }
}
