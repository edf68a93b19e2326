//! The log as readers and the writer share it: what is there, and the ways to its events.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use factum_core::{Direction, Lineage, Position, StoreError, StreamId, Timestamp};
use hashbrown::HashMap;

use crate::{
    buffers::Buffers,
    cache::Cache,
    disk::Files,
    erased::Erased,
    error,
    hot::Hot,
    record::{EventRecord, Record, RecordPlace, StreamState, take_record},
    segment::{Names, Segment, segment_name},
    stretch::Stretch,
    tables::{Place, Tables},
};

/// Records that lie so near to one another are read in one piece, in bytes.
const GAP_MAX: u64 = 4 << 10;
/// The most bytes that are read in one piece, unless one record is larger.
const READ_BYTES_MAX: u64 = 256 << 10;
/// The most sealed segments that are kept open.
const OPEN_SEGMENTS_MAX: usize = 256;

/// What is in the log at one moment. Cheap to clone; it stays as it is when the log goes on.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) head: u64,
    /// When the last event was recorded.
    pub(crate) last_at: Timestamp,
    pub(crate) erased: Arc<Erased>,
    pub(crate) tables: Arc<Tables>,
}

/// The log as readers and the writer share it.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) lineage: Lineage,
    pub(crate) cache: Cache,
    pub(crate) hot: Hot,
    buffers: Buffers,
    view: RwLock<View>,
    sealed: Mutex<HashMap<u64, SegmentText>>,
}

/// What it takes to read the events of a segment.
#[derive(Debug, Clone)]
pub(crate) struct SegmentText {
    pub(crate) segment: Segment,
    pub(crate) names: Arc<Names>,
}

/// Whether the reader takes more events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    More,
    /// Not even this one.
    Full,
}

impl Log {
    pub(crate) fn new(files: Arc<dyn Files>, lineage: Lineage, view: View) -> Self {
        let (cache, sealed, buffers) = (Cache::new(), Mutex::default(), Buffers::default());
        Self { files, lineage, cache, hot: Hot::new(), buffers, view: RwLock::new(view), sealed }
    }

    /// What is there now.
    pub(crate) fn view(&self) -> View {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at what is there now, for a moment in which nothing can change.
    pub(crate) fn peek<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is there now, and how a stream is at the same moment.
    pub(crate) fn view_with(&self, stream: &StreamId) -> Result<(View, StreamState), StoreError> {
        let (view, state) = {
            let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
            let state = view.tables.recent_state(stream.as_str());
            (view.clone(), state)
        };
        // Runs never change, so that they can be asked without holding anything.
        let state = match state {
            Some(state) => Some(state),
            None => view.tables.run_state(&self.cache, stream.as_str())?,
        };
        Ok((view, state.unwrap_or_default()))
    }

    /// Changes what is there, at once for every reader.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        change(&mut self.view.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows the events at these positions, in this order, until no more are taken. The answer: the
    /// first position that was not taken.
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
        let mut pieces = pieces(&places);
        if direction == Direction::Backward {
            pieces.reverse();
        }
        let mut buffer = self.buffers.take();
        let bytes = &mut buffer.bytes;
        let mut last: Option<SegmentText> = None;
        for piece in pieces {
            let places = &places[piece];
            let text = match last.take() {
                Some(text) if text.segment.header.first == places[0].segment => text,
                _ => self.text(view, places[0].segment)?,
            };
            let text = last.insert(text);
            let start = places[0].offset;
            self.read_piece(&text.segment, start..places[places.len() - 1].end, bytes)?;
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

    /// Shows one event.
    pub(crate) fn read_event<T>(
        &self,
        view: &View,
        position: u64,
        take: impl FnOnce(&EventRecord<'_>) -> T,
    ) -> Result<T, StoreError> {
        let places = view.tables.places(&self.cache, &[position])?;
        let text = self.text(view, places[0].segment)?;
        let mut bytes = Vec::new();
        self.read_piece(&text.segment, places[0].offset..places[0].end, &mut bytes)?;
        event_at(&text, places[0], &bytes, places[0].offset).map(|(event, _)| take(&event))
    }

    /// When an event was recorded.
    pub(crate) fn recorded_at(&self, view: &View, position: u64) -> Result<Timestamp, StoreError> {
        self.read_event(view, position, |event| event.header.recorded_at)
    }

    fn read_piece(
        &self,
        segment: &Segment,
        range: Range<u64>,
        into: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        // Grows and is filled once; later pieces overwrite what is there.
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

    /// What it takes to read the events of a segment.
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
        let segment = Segment::open(&*self.files, first)?;
        let run = view.tables.run_of(first).ok_or_else(|| error::damaged_index("memory", first))?;
        let names = Arc::new(Stretch { run, cache: &self.cache }.names(first)?);
        if sealed.len() >= OPEN_SEGMENTS_MAX {
            // Whichever: it is opened again when it is wanted.
            let some = sealed.keys().next().copied();
            some.and_then(|some| sealed.remove(&some));
        }
        let text = SegmentText { segment, names };
        sealed.insert(first, text.clone());
        Ok(text)
    }
}

/// Which places are read in one piece.
fn pieces(places: &[Place]) -> Vec<Range<usize>> {
    let mut pieces: Vec<Range<usize>> = Vec::new();
    for (index, place) in places.iter().enumerate() {
        match pieces.last_mut() {
            Some(piece)
                if places[piece.start].segment == place.segment
                    && place.offset.saturating_sub(places[index - 1].end) <= GAP_MAX
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
