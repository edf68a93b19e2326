//! The whole index at one moment: the runs of sealed segments, then the part in memory.

use std::{
    ops::RangeInclusive,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use factum_kernel::{Direction, StoreError};

use crate::{
    cache::Cache, chunk::Places, error, posting::TermSource, recent::Recent, record::StreamState,
    run::Run, run::reader::RunReader,
};

/// An index in memory that the writer shares with readers.
#[derive(Debug)]
pub(crate) struct SharedRecent(RwLock<Recent>);

impl SharedRecent {
    pub(crate) fn new(recent: Recent) -> Arc<Self> {
        Arc::new(Self(RwLock::new(recent)))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Recent> {
        // Only the writer changes it, and the writer ends if it panics.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Recent> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The whole index: parts that cover consecutive positions.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    /// The runs of sealed segments.
    pub(crate) runs: Vec<Arc<Run>>,
    /// The segments without a run. The last is the active one.
    pub(crate) recents: Vec<Arc<SharedRecent>>,
}

/// The place of an event's record, or at least of its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: u64,
    /// The first position of its segment.
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// The record ends at this offset or before it.
    pub(crate) end: u64,
}

impl Tables {
    /// The index of the active segment.
    pub(crate) fn active(&self) -> &Arc<SharedRecent> {
        self.recents.last().expect("a log always has an active segment")
    }

    /// The state of a stream, if the part in memory knows it.
    pub(crate) fn recent_state(&self, stream: &str) -> Option<StreamState> {
        self.recents.iter().rev().find_map(|recent| recent.read().state(stream))
    }

    /// The state of a stream before the segments in memory.
    pub(crate) fn run_state(
        &self,
        cache: &Cache,
        stream: &str,
    ) -> Result<Option<StreamState>, StoreError> {
        for run in self.runs.iter().rev() {
            if let Some(state) = (RunReader { run, cache }).state(stream)? {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    /// Returns whether [`Self::state`] must read the disk.
    pub(crate) fn needs_disk(&self, cache: &Cache, stream: &str) -> bool {
        !self.runs.is_empty()
            && self.recent_state(stream).is_none()
            && self.runs.iter().any(|run| RunReader { run, cache }.needs_disk(stream))
    }

    /// The state of a stream.
    pub(crate) fn state(&self, cache: &Cache, stream: &str) -> Result<StreamState, StoreError> {
        match self.recent_state(stream) {
            Some(state) => Ok(state),
            None => Ok(self.run_state(cache, stream)?.unwrap_or_default()),
        }
    }

    /// Up to `limit` positions of a stream, from a version on, in the read's direction.
    pub(crate) fn stream_positions(
        &self,
        cache: &Cache,
        stream: &str,
        from: u64,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<u64>, StoreError> {
        let mut found = Vec::new();
        let runs = self.runs.iter().map(Part::Run);
        let mut parts: Vec<_> = runs.chain(self.recents.iter().map(Part::Recent)).collect();
        if direction == Direction::Backward {
            parts.reverse();
        }
        for part in parts {
            let left = limit - found.len();
            if left == 0 {
                break;
            }
            found.extend(match part {
                Part::Run(run) => {
                    RunReader { run, cache }.stream_positions(stream, from, direction, left)?
                }
                Part::Recent(recent) => {
                    recent.read().stream_positions(stream, from, direction, left)
                }
            });
        }
        Ok(found)
    }

    /// The positions of those events of a stream that have these versions. A version that a
    /// deletion took has no position, and neither has an event that was left out.
    pub(crate) fn positions_between(
        &self,
        cache: &Cache,
        stream: &str,
        versions: RangeInclusive<u64>,
    ) -> Result<Vec<u64>, StoreError> {
        let mut found = Vec::new();
        for run in &self.runs {
            found.extend(RunReader { run, cache }.positions_between(stream, versions.clone())?);
        }
        for recent in &self.recents {
            found.extend(recent.read().positions_between(stream, versions.clone()));
        }
        Ok(found)
    }

    /// Passes the parts of the index from a position on to `look`, one by one in the read's
    /// direction, until `look` answers `Done`.
    pub(crate) fn each_source(
        &self,
        cache: &Cache,
        from: u64,
        direction: Direction,
        mut look: impl FnMut(&dyn TermSource) -> Result<Search, StoreError>,
    ) -> Result<(), StoreError> {
        let runs = self.runs.iter().map(Part::Run);
        let mut parts: Vec<_> = runs.chain(self.recents.iter().map(Part::Recent)).collect();
        if direction == Direction::Backward {
            parts.reverse();
        }
        for part in parts {
            let search = match part {
                Part::Run(run) => look_from(&RunReader { run, cache }, from, direction, &mut look)?,
                Part::Recent(recent) => look_from(&*recent.read(), from, direction, &mut look)?,
            };
            if search == Search::Done {
                break;
            }
        }
        Ok(())
    }

    /// The places of the events at these positions, which must be ascending and in the log.
    pub(crate) fn places(
        &self,
        cache: &Cache,
        positions: &[u64],
    ) -> Result<Vec<Place>, StoreError> {
        let mut places = Vec::with_capacity(positions.len());
        let mut rest = positions;
        while let Some(first) = rest.first() {
            let run = self.run_of(*first);
            let here = match run {
                Some(run) => rest.partition_point(|position| *position <= run.header.last),
                None => rest.len(),
            };
            match run {
                Some(run) => run_places(RunReader { run, cache }, &rest[..here], &mut places)?,
                None => self.recent_places(&rest[..here], &mut places)?,
            }
            rest = &rest[here..];
        }
        Ok(places)
    }

    /// The run that covers a position; `None` if the position is in memory or not in the log.
    pub(crate) fn run_of(&self, position: u64) -> Option<&Arc<Run>> {
        let after = self.runs.partition_point(|run| run.header.first <= position);
        let run = &self.runs[after.checked_sub(1)?];
        (position <= run.header.last).then_some(run)
    }

    fn recent_places(&self, positions: &[u64], places: &mut Vec<Place>) -> Result<(), StoreError> {
        let mut positions = positions.iter().peekable();
        for recent in &self.recents {
            let recent = recent.read();
            let segment = recent.first();
            while let Some(position) = positions.next_if(|position| **position <= recent.last()) {
                let (offset, end) = recent.place(*position).ok_or_else(|| missing(*position))?;
                let offset = u64::from(offset);
                let end = u64::from(end);
                places.push(Place { position: *position, segment, offset, end });
            }
        }
        positions.next().map_or(Ok(()), |position| Err(missing(*position)))
    }
}

/// The decision of a caller whether a search goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    More,
    Done,
}

enum Part<'t> {
    Run(&'t Arc<Run>),
    Recent(&'t Arc<SharedRecent>),
}

fn look_from(
    source: &dyn TermSource,
    from: u64,
    direction: Direction,
    look: &mut impl FnMut(&dyn TermSource) -> Result<Search, StoreError>,
) -> Result<Search, StoreError> {
    let (first, last) = source.range();
    let is_past = match direction {
        Direction::Forward => last < from,
        Direction::Backward => first > from,
    };
    if is_past { Ok(Search::More) } else { look(source) }
}

fn run_places(
    reader: RunReader<'_>,
    positions: &[u64],
    places: &mut Vec<Place>,
) -> Result<(), StoreError> {
    let mut chunk: Option<(u64, Places)> = None;
    for position in positions {
        let index = |(first, places): &(u64, Places)| {
            let index = (position - first) as usize;
            (index + 1 < places.offsets.len()).then_some(index)
        };
        if chunk.as_ref().and_then(index).is_none() {
            chunk = Some(reader.places(*position)?);
        }
        let (index, found) = chunk
            .as_ref()
            .and_then(|chunk| Some((index(chunk)?, &chunk.1)))
            .ok_or_else(|| missing(*position))?;
        let offset = found.offsets[index];
        let end = found.offsets[index + 1];
        places.push(Place { position: *position, segment: found.segment, offset, end });
    }
    Ok(())
}

fn missing(position: u64) -> StoreError {
    error::damaged_index("memory", position)
}
