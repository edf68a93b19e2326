//! From the frames of a segment to its index in memory.

use factum_core::{Direction, StoreError, Timestamp};

use crate::{
    cache::Cache,
    erased::{Erased, container_of},
    error,
    frames::Frame,
    recent::Indexed,
    record::{EventRecord, Record, StreamState},
    tables::Tables,
};

/// Adds frames to the index of the segment that they are in.
pub(crate) struct Replay<'t> {
    /// The index before the segment, and the segment's own as the last.
    pub(crate) tables: &'t Tables,
    pub(crate) cache: &'t Cache,
    pub(crate) erased: Erased,
    pub(crate) last_at: Timestamp,
}

impl Replay<'_> {
    /// Adds a frame.
    pub(crate) fn add(&mut self, frame: &Frame<'_>) -> Result<(), StoreError> {
        for (offset, record) in &frame.records {
            match record {
                Record::Name(name) => self.tables.active().write().add_name(name),
                Record::Event(event) => self.add_event(event, *offset)?,
                Record::Change(stream, state) => self.change(stream, *state)?,
                Record::Document(_) | Record::Commit => {
                    let recent = self.tables.active().read();
                    let what = "a document stands among events";
                    return Err(error::damaged(what, recent.first(), u64::from(*offset)));
                }
            }
        }
        self.tables.active().write().end = frame.end;
        Ok(())
    }

    fn add_event(&mut self, event: &EventRecord<'_>, offset: u32) -> Result<(), StoreError> {
        let before = self.tables.state(self.cache, event.stream)?;
        let mut recent = self.tables.active().write();
        let version = event.header.version;
        let is_next = version == before.bounds.version.next()
            && (event.name as usize) < recent.names.len()
            && event.header.position.value() == recent.last() + 1
            && event.header.recorded_at >= self.last_at;
        let Some((category, _)) = event.stream.split_once('-').filter(|_| is_next) else {
            let what = format!("position {} does not follow", event.header.position);
            return Err(error::damaged(what, recent.first(), u64::from(offset)));
        };
        let indexed = Indexed { offset, stream: event.stream, category, version, name: event.name };
        recent.push(indexed, tags_of(event.tags), || before);
        self.last_at = event.header.recorded_at;
        Ok(())
    }

    fn change(&mut self, stream: &str, state: StreamState) -> Result<(), StoreError> {
        let before = self.tables.state(self.cache, stream)?;
        let (from, through) =
            (before.bounds.erased_through.value() + 1, state.bounds.erased_through.value());
        let erased = erase(self.tables, self.cache, &mut self.erased, (stream, from, through))?;
        let mut recent = self.tables.active().write();
        recent.erased_containers.extend(erased);
        recent.set_state(stream, state);
        Ok(())
    }
}

/// Positions that are looked up at a time.
const STEP: usize = 4_096;

/// Marks the events of a stream between two versions as erased. The answer: the containers.
pub(crate) fn erase(
    tables: &Tables,
    cache: &Cache,
    erased: &mut Erased,
    (stream, from, through): (&str, u64, u64),
) -> Result<Vec<u64>, StoreError> {
    let mut containers = Vec::new();
    let mut version = from;
    while version <= through {
        let limit = STEP.min(usize::try_from(through + 1 - version).unwrap_or(STEP));
        let found = tables.stream_positions(cache, stream, version, Direction::Forward, limit)?;
        for position in &found {
            erased.insert(*position);
            if containers.last() != Some(&container_of(*position)) {
                containers.push(container_of(*position));
            }
        }
        if found.len() < limit {
            break;
        }
        version += found.len() as u64;
    }
    Ok(containers)
}

/// The tags of an event, each `name:value`, out of their stored form.
pub(crate) fn tags_of(mut bytes: &[u8]) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk::<2>()?;
        let (tag, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
        bytes = rest;
        std::str::from_utf8(tag).ok()
    })
}
