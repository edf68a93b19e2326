//! The index of one segment in memory: of the active one, and of those sealed lately whose run is
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
    /// Where each event's record begins; of one that was left out, where the one before ended.
    pub(crate) offsets: Vec<u32>,
    /// Where the frames end.
    pub(crate) end: u32,
    /// The names of event types, by number.
    pub(crate) names: Arc<Names>,
    name_numbers: HashMap<Box<str>, u32>,
    pub(crate) types: Vec<Vec<u32>>,
    pub(crate) categories: HashMap<String, Vec<u32>>,
    pub(crate) tags: HashMap<String, Vec<u32>>,
    pub(crate) streams: HashMap<String, RecentStream>,
    /// Containers of erased positions that changed while the segment was written.
    pub(crate) erased_containers: BTreeSet<u64>,
}

/// A stream that the segment holds events or changes of.
#[derive(Debug, Default)]
pub(crate) struct RecentStream {
    /// How it is; also what happened before the segment.
    pub(crate) state: StreamState,
    positions: Vec<u32>,
    /// The version of the first of `positions`.
    first_version: u64,
    /// Where versions go on otherwise than by one, because a deletion took some: the index in
    /// `positions`, and the version there.
    jumps: Vec<(u32, u64)>,
}

/// An event, as far as the index wants to know it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Indexed<'a> {
    pub(crate) offset: u32,
    pub(crate) stream: &'a str,
    pub(crate) category: &'a str,
    pub(crate) version: StreamVersion,
    pub(crate) name: u32,
}

impl Recent {
    /// The index of a segment without frames.
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

    /// The last position, or the one before the first.
    pub(crate) fn last(&self) -> u64 {
        self.first() + self.offsets.len() as u64 - 1
    }

    pub(crate) fn name_number(&self, name: &str) -> Option<u32> {
        self.name_numbers.get(name).copied()
    }

    pub(crate) fn add_name(&mut self, name: &str) {
        self.name_numbers.insert(name.into(), self.names.len() as u32);
        // Copied only where a reader holds the names just now, and there are few.
        Arc::make_mut(&mut self.names).push(name.into());
        self.types.push(Vec::new());
    }

    /// Adds the next event. `before`: how its stream was before the segment, asked only if the
    /// segment has nothing of it yet.
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
            // An event may carry a tag twice.
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

    /// Passes over the next position: its event was left out when the segment was rewritten.
    pub(crate) fn skip(&mut self) {
        self.offsets.push(self.end);
    }

    /// Sets how a stream is.
    pub(crate) fn set_state(&mut self, stream: &str, state: StreamState) {
        self.streams.entry_ref(stream).or_default().state = state;
    }

    pub(crate) fn state(&self, stream: &str) -> Option<StreamState> {
        self.streams.get(stream).map(|stream| stream.state)
    }

    /// The positions of a stream's events with these versions, as far as they are there.
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

    /// Up to `limit` positions of a stream from a version on, in the direction of the read.
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

    /// Where the records of events begin and the bytes end in which the last of them is, for the
    /// positions of which the segment holds events.
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

    /// How many of the events are below a version.
    fn count_before(&self, version: u64) -> usize {
        let chunks = self.stretches().take_while(|(first, _)| *first < version);
        chunks.map(|(first, positions)| positions.len().min(distance(first, version))).sum()
    }

    /// Its events in stretches of versions without a jump: the first version, the positions.
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
