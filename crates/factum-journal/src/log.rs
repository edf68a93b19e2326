//! The log as the writer shares it with readers: its state at a moment, and the reading of its
//! events.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use factum_backend::Prechecks;
use factum_kernel::{Direction, Lineage, Position, StoreError, StreamId, Timestamp};
use hashbrown::HashMap;

use crate::{
    buffers::Buffers,
    cache::Cache,
    disk::Files,
    erased::Erased,
    error,
    hot::Hot,
    record::{EventRecord, Record, RecordPlace, StreamState, take_record},
    run::reader::RunReader,
    segment::{Names, Segment, segment_name},
    tables::{Place, Tables},
};

/// Records with at most this gap between them are read in one piece, in bytes.
const GAP_MAX: u64 = 4 << 10;
/// The most bytes that are read in one piece, unless a single record is larger.
const READ_BYTES_MAX: u64 = 256 << 10;
/// The most sealed segments that are kept open.
const OPEN_SEGMENTS_MAX: usize = 256;
/// The most extents of rewritten segments that are kept in memory, besides those of one segment: 64
/// MiB.
const EXTENTS_MAX: usize = 4 << 20;

/// The state of the log at one moment. A clone is cheap, and does not change when the log grows.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// The lineage in pages; see [`lineage`](crate::lineage).
    pub(crate) lineage: Lineage,
    pub(crate) head: u64,
    /// The time of the last event.
    pub(crate) last_at: Timestamp,
    pub(crate) erased: Arc<Erased>,
    pub(crate) tables: Arc<Tables>,
}

/// The log as the writer shares it with readers.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) files: Arc<dyn Files>,
    /// The lineage in segments and runs.
    pub(crate) lineage: Lineage,
    pub(crate) cache: Cache,
    pub(crate) hot: Hot,
    pub(crate) prechecks: Arc<Prechecks>,
    buffers: Buffers,
    view: RwLock<View>,
    sealed: Mutex<HashMap<u64, SegmentText>>,
}

/// All that a reader of a segment's events needs.
#[derive(Debug, Clone)]
pub(crate) struct SegmentText {
    pub(crate) segment: Segment,
    pub(crate) names: Arc<Names>,
}

/// The answer of a reader to an event: whether it takes more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    More,
    /// The reader is full, and did not take this event.
    Full,
}

impl Log {
    pub(crate) fn new(files: Arc<dyn Files>, lineage: Lineage, view: View) -> Self {
        let cache = Cache::new();
        let sealed = Mutex::default();
        let buffers = Buffers::default();
        let hot = Hot::new();
        let prechecks = Arc::default();
        let view = RwLock::new(view);
        Self { files, lineage, cache, hot, prechecks, buffers, view, sealed }
    }

    /// The current view.
    pub(crate) fn view(&self) -> View {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the current view while nothing can change it.
    pub(crate) fn peek<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The current view, and the state of a stream at the same moment.
    pub(crate) fn view_with(&self, stream: &StreamId) -> Result<(View, StreamState), StoreError> {
        let (view, state) = {
            let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
            let state = view.tables.recent_state(stream.as_str());
            (view.clone(), state)
        };
        // Runs never change, so no lock is needed to read them.
        let state = match state {
            Some(state) => Some(state),
            None => view.tables.run_state(&self.cache, stream.as_str())?,
        };
        Ok((view, state.unwrap_or_default()))
    }

    /// Changes the view, for all readers at once.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        change(&mut self.view.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Passes the events at these positions to a reader, in this order, until it takes no more.
    /// Returns the first position that was not taken.
    pub(crate) fn read_events(
        &self,
        view: &View,
        positions: &[u64],
        direction: Direction,
        mut take: impl FnMut(&EventRecord<'_>, &str) -> Result<Taken, StoreError>,
    ) -> Result<Option<u64>, StoreError> {
        let mut ascending;
        let positions = match direction {
            Direction::Forward => positions,
            Direction::Backward => {
                ascending = positions.to_vec();
                ascending.reverse();
                &ascending[..]
            }
        };
        let places = view.tables.places(&self.cache, positions)?;
        let mut groups: Vec<_> = places.chunk_by(|a, b| a.segment == b.segment).collect();
        if direction == Direction::Backward {
            groups.reverse();
        }
        let mut buffer = self.buffers.take();
        for places in groups {
            let text = self.text(view, places[0].segment)?;
            let found = read_segment(&text, places, direction, &mut buffer.bytes, &mut take)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The time of an event. For an erased event whose space was reclaimed: the time of the last
    /// kept event before it in its segment, or else of the last event before the segment.
    pub(crate) fn recorded_at(&self, view: &View, position: u64) -> Result<Timestamp, StoreError> {
        let mut places = view.tables.places(&self.cache, &[position])?;
        let text = self.text(view, places[0].segment)?;
        if let Some(extents) = &text.segment.extents
            && view.erased.contains(position)
        {
            match extents.kept_before(position) {
                None => return Ok(text.segment.header.base_at),
                Some(kept) if kept == position => {}
                Some(kept) => places = view.tables.places(&self.cache, &[kept])?,
            }
        }
        let mut at = Timestamp::EPOCH;
        read_segment(&text, &places, Direction::Forward, &mut Vec::new(), &mut |event, _| {
            at = event.header.recorded_at;
            Ok(Taken::More)
        })?;
        Ok(at)
    }

    /// Drops a sealed segment from the cache of open files; the next read opens it again.
    pub(crate) fn forget(&self, first: u64) {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner).remove(&first);
    }

    /// Drops all sealed segments from the cache of open files; the next reads open them again.
    pub(crate) fn forget_all(&self) {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The open segment, and the names of its event types.
    pub(crate) fn text(&self, view: &View, first: u64) -> Result<SegmentText, StoreError> {
        let recents = view.tables.recents.iter().rev();
        for recent in recents {
            let recent = recent.read();
            if recent.first() == first {
                return Ok(SegmentText {
                    segment: recent.segment.clone(),
                    names: recent.names.clone(),
                });
            }
        }
        let mut sealed = self.sealed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = sealed.get(&first) {
            return Ok(text.clone());
        }
        let segment = Segment::open(&*self.files, first)?.with_extents()?;
        let run = view.tables.run_of(first).ok_or_else(|| error::damaged_index("memory", first))?;
        let names = Arc::new(RunReader { run, cache: &self.cache }.names(first)?);
        let text = SegmentText { segment, names };
        let extents = |sealed: &HashMap<u64, SegmentText>| -> usize {
            sealed.values().map(SegmentText::extents).sum()
        };
        while sealed.len() >= OPEN_SEGMENTS_MAX || extents(&sealed) > EXTENTS_MAX {
            // Any of them will do; the next read of it opens it again.
            let some = sealed.keys().next().copied();
            some.and_then(|some| sealed.remove(&some));
        }
        sealed.insert(first, text.clone());
        Ok(text)
    }
}

impl SegmentText {
    fn extents(&self) -> usize {
        self.segment.extents.as_ref().map_or(0, |extents| extents.list().len())
    }
}

/// Passes the events at places of one segment to a reader. Returns the first position that was not
/// taken.
fn read_segment(
    text: &SegmentText,
    places: &[Place],
    direction: Direction,
    bytes: &mut Vec<u8>,
    take: &mut impl FnMut(&EventRecord<'_>, &str) -> Result<Taken, StoreError>,
) -> Result<Option<u64>, StoreError> {
    let located = places.iter().map(|place| {
        let found = text.segment.locate(*place)?;
        found.ok_or_else(|| error::left_out(place.position))
    });
    let places: Vec<Place> = located.collect::<Result<_, _>>()?;
    let mut pieces = pieces(&places);
    if direction == Direction::Backward {
        pieces.reverse();
    }
    for piece in pieces {
        let places = &places[piece];
        let start = places[0].offset;
        read_piece(&text.segment, start..places[places.len() - 1].end, bytes)?;
        for index in 0..places.len() {
            let place = match direction {
                Direction::Forward => places[index],
                Direction::Backward => places[places.len() - 1 - index],
            };
            let (event, name) = event_at(text, place, bytes, start)?;
            if take(&event, name)? == Taken::Full {
                return Ok(Some(place.position));
            }
        }
    }
    Ok(None)
}

fn read_piece(segment: &Segment, range: Range<u64>, into: &mut Vec<u8>) -> Result<(), StoreError> {
    let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    // The buffer is zeroed only where it grows; later pieces overwrite the content.
    if into.len() < len {
        into.resize(len, 0);
    }
    let name = || segment_name(segment.header.first);
    let read = segment
        .file
        .fill_at(&mut into[..len], range.start)
        .map_err(|e| error::disk("reading events", &name(), e))?;
    into[read..len].fill(0);
    Ok(())
}

/// Groups the places of a segment into pieces, each of which is read at once.
fn pieces(places: &[Place]) -> Vec<Range<usize>> {
    let mut pieces: Vec<Range<usize>> = Vec::new();
    for (index, place) in places.iter().enumerate() {
        match pieces.last_mut() {
            Some(piece)
                if place.offset.saturating_sub(places[index - 1].end) <= GAP_MAX
                    && place.end - places[piece.start].offset <= READ_BYTES_MAX =>
            {
                piece.end = index + 1;
            }
            _ => pieces.push(index..index + 1),
        }
    }
    pieces
}

fn event_at<'b>(
    text: &'b SegmentText,
    place: Place,
    bytes: &'b [u8],
    start: u64,
) -> Result<(EventRecord<'b>, &'b str), StoreError> {
    let SegmentText { segment, names } = text;
    let at = RecordPlace {
        seed: segment.seed,
        base_at: segment.header.base_at,
        position: place.position,
    };
    let mut bytes = &bytes[(place.offset - start) as usize..];
    if let Some(Record::Event(event)) = take_record(&mut bytes, at)
        && let Some(name) = names.get(event.name as usize)
    {
        return Ok((event, name));
    }
    let position = Position::new(place.position);
    let what = format!("an event is not what was written, position={position}");
    Err(error::damaged(what, place.segment, place.offset))
}
