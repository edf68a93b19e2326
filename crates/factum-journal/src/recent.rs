//! The index of one segment in memory: of the active segment, and of sealed segments whose run is
//! not written yet.

use std::{collections::BTreeSet, ops::RangeInclusive, sync::Arc};

use factum_kernel::{Direction, StreamVersion};
use hashbrown::HashMap;

use crate::{
    key::Term,
    posting::{List, Slice, TermSource},
    record::StreamState,
    segment::{FRAMES_START, Names, Segment},
};

/// The index of one segment in memory. Positions are kept relative to the segment's first.
#[derive(Debug)]
pub(crate) struct Recent {
    pub(crate) segment: Segment,
    /// The offset where each event's record begins. For a left-out event: the end of the record
    /// before.
    pub(crate) offsets: Vec<u32>,
    /// The offset where the frames end.
    pub(crate) end: u32,
    /// The names of event types, by number.
    pub(crate) names: Arc<Names>,
    name_numbers: HashMap<Box<str>, u32>,
    pub(crate) types: Vec<Vec<u32>>,
    pub(crate) categories: HashMap<String, Vec<u32>>,
    pub(crate) tags: HashMap<String, Vec<u32>>,
    pub(crate) streams: HashMap<String, RecentStream>,
    /// The containers of erased positions that changed while the segment was active.
    pub(crate) erased_containers: BTreeSet<u64>,
}

/// A stream with events or changes in the segment.
#[derive(Debug, Default)]
pub(crate) struct RecentStream {
    /// Its state, which also covers what happened before the segment.
    pub(crate) state: StreamState,
    positions: Vec<u32>,
    /// The version of the first of `positions`.
    first_version: u64,
    /// The places where the version grows by more than one, because a deletion took a version: the
    /// index in `positions`, and the version of that event.
    jumps: Vec<(u32, u64)>,
}

/// The properties of an event that the index needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Indexed<'a> {
    pub(crate) offset: u32,
    pub(crate) stream: &'a str,
    pub(crate) category: &'a str,
    pub(crate) version: StreamVersion,
    pub(crate) name: u32,
}

impl Recent {
    /// The index of a segment that has no frames yet.
    pub(crate) fn new(segment: Segment) -> Self {
        Self {
            segment,
            offsets: Vec::new(),
            end: FRAMES_START,
            names: Arc::default(),
            name_numbers: HashMap::new(),
            types: Vec::new(),
            categories: HashMap::new(),
            tags: HashMap::new(),
            streams: HashMap::new(),
            erased_containers: BTreeSet::new(),
        }
    }

    pub(crate) fn first(&self) -> u64 {
        self.segment.header.first
    }

    /// The last position in the segment; the one before the first if there is none.
    pub(crate) fn last(&self) -> u64 {
        self.first() + self.offsets.len() as u64 - 1
    }

    pub(crate) fn name_number(&self, name: &str) -> Option<u32> {
        self.name_numbers.get(name).copied()
    }

    pub(crate) fn add_name(&mut self, name: &str) {
        self.name_numbers.insert(name.into(), self.names.len() as u32);
        // This copies the names only while a reader holds them, and there are few.
        Arc::make_mut(&mut self.names).push(name.into());
        self.types.push(Vec::new());
    }

    /// Adds the next event. `before` returns the stream's state before the segment; it is called
    /// only for the stream's first event in the segment.
    pub(crate) fn push<'t>(
        &mut self,
        event: Indexed<'_>,
        tags: impl Iterator<Item = &'t str>,
        before: impl FnOnce() -> StreamState,
    ) {
        let relative = self.offsets.len() as u32;
        self.offsets.push(event.offset);
        self.types[event.name as usize].push(relative);
        self.categories.entry_ref(event.category).or_default().push(relative);
        for tag in tags {
            let postings = self.tags.entry_ref(tag).or_default();
            // An event may have the same tag twice.
            if postings.last() != Some(&relative) {
                postings.push(relative);
            }
        }
        let stream = self
            .streams
            .entry_ref(event.stream)
            .or_insert_with(|| RecentStream { state: before(), ..RecentStream::default() });
        stream.push(relative, event.version);
    }

    /// Skips the next position, whose event was left out when the segment was rewritten.
    pub(crate) fn skip(&mut self) {
        self.offsets.push(self.end);
    }

    /// Sets the state of a stream.
    pub(crate) fn set_state(&mut self, stream: &str, state: StreamState) {
        self.streams.entry_ref(stream).or_default().state = state;
    }

    pub(crate) fn state(&self, stream: &str) -> Option<StreamState> {
        self.streams.get(stream).map(|stream| stream.state)
    }

    /// The positions of those events of a stream that have these versions and are in the segment.
    pub(crate) fn positions_between(
        &self,
        stream: &str,
        versions: RangeInclusive<u64>,
    ) -> Vec<u64> {
        let Some(stream) = self.streams.get(stream) else { return Vec::new() };
        let start = stream.count_before(*versions.start());
        let end = stream.count_before(versions.end().saturating_add(1));
        let relative = stream.positions.get(start..end).unwrap_or(&[]);
        relative.iter().map(|it| self.first() + u64::from(*it)).collect()
    }

    /// Up to `limit` positions of a stream, from a version on, in the read's direction.
    pub(crate) fn stream_positions(
        &self,
        stream: &str,
        from: u64,
        direction: Direction,
        limit: usize,
    ) -> Vec<u64> {
        let Some(stream) = self.streams.get(stream) else { return Vec::new() };
        let first = self.first();
        let absolute = |relative: &u32| first + u64::from(*relative);
        match direction {
            Direction::Forward => {
                let start = stream.count_before(from);
                stream.positions[start..].iter().take(limit).map(absolute).collect()
            }
            Direction::Backward => {
                let end = stream.count_before(from.saturating_add(1));
                stream.positions[..end].iter().rev().take(limit).map(absolute).collect()
            }
        }
    }

    /// The offset of an event's record, and an offset at or after its end; `None` for a position
    /// outside the segment.
    pub(crate) fn place(&self, position: u64) -> Option<(u32, u32)> {
        let relative = usize::try_from(position.checked_sub(self.first())?).ok()?;
        let offset = *self.offsets.get(relative)?;
        Some((offset, self.offsets.get(relative + 1).copied().unwrap_or(self.end)))
    }
}

impl TermSource for Recent {
    fn list(&self, term: Term<'_>) -> Option<List<'_>> {
        let found = match term {
            Term::Category(name) => self.categories.get(name),
            Term::Tag(tag) => self.tags.get(tag),
            Term::Type(name) => self.name_number(name).map(|number| &self.types[number as usize]),
            Term::Stream(stream) => self.streams.get(stream).map(|stream| &stream.positions),
        };
        found.map(|relative| List::Slice(Slice { first: self.first(), relative }))
    }

    fn range(&self) -> (u64, u64) {
        (self.first(), self.last())
    }
}

impl RecentStream {
    fn push(&mut self, relative: u32, version: StreamVersion) {
        let version = version.value();
        if self.positions.is_empty() {
            self.first_version = version;
        } else if version != self.next_version() {
            self.jumps.push((self.positions.len() as u32, version));
        }
        self.positions.push(relative);
        self.state.bounds.version = StreamVersion::new(version);
    }

    fn next_version(&self) -> u64 {
        let (index, version) = self.jumps.last().copied().unwrap_or((0, self.first_version));
        version + self.positions.len() as u64 - u64::from(index)
    }

    /// The number of events below a version.
    fn count_before(&self, version: u64) -> usize {
        let chunks = self.stretches().take_while(|(first, _)| *first < version);
        chunks.map(|(first, positions)| positions.len().min(distance(first, version))).sum()
    }

    /// Its events in sequences of consecutive versions: the first version, and the positions.
    pub(crate) fn stretches(&self) -> impl Iterator<Item = (u64, &[u32])> {
        let starts = std::iter::once((0, self.first_version)).chain(self.jumps.iter().copied());
        let ends = self.jumps.iter().map(|(index, _)| *index as usize);
        starts
            .zip(ends.chain([self.positions.len()]))
            .map(|((start, version), end)| (version, &self.positions[start as usize..end]))
    }
}

fn distance(first: u64, last: u64) -> usize {
    usize::try_from(last - first).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_a_deletion_took_are_jumped_over() {
        let mut stream = RecentStream::default();
        for (relative, version) in [(0, 4), (3, 5), (4, 7), (8, 8), (9, 10)] {
            stream.push(relative, StreamVersion::new(version));
        }
        let stretches: Vec<_> = stream.stretches().collect();
        assert_eq!(stretches, [(4, &[0, 3][..]), (7, &[4, 8]), (10, &[9])]);
        let counts = (3..=12).map(|version| stream.count_before(version));
        assert_eq!(counts.collect::<Vec<_>>(), [0, 0, 1, 2, 2, 3, 4, 4, 5, 5]);
    }
}
