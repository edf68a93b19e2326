//! Replay: from the frames of a segment to its index in memory.

use std::ops::{Range, RangeInclusive};

use factum_kernel::{StoreError, StreamVersion, Timestamp};

use crate::{
    cache::Cache,
    erased::{Erased, container_of},
    error,
    frames::Frame,
    recent::Indexed,
    record::{EventRecord, Record, StreamState},
    tables::Tables,
};

/// Adds frames to the index of their segment.
pub(crate) struct Replay<'t> {
    /// The index before the segment, followed by the segment's own.
    pub(crate) tables: &'t Tables,
    pub(crate) cache: &'t Cache,
    pub(crate) erased: Erased,
    pub(crate) last_at: Timestamp,
}

impl Replay<'_> {
    /// Adds a frame.
    pub(crate) fn add(&mut self, frame: &Frame<'_>) -> Result<(), StoreError> {
        if !frame.left_out.is_empty() {
            self.skip(frame.left_out.clone());
        }
        for (offset, record) in &frame.records {
            match record {
                Record::Name(name) => self.tables.active().write().add_name(name),
                Record::Event(event) => self.add_event(event, *offset)?,
                Record::Change(stream, state) => self.change(stream, *state)?,
                Record::Erased(stream, version) => self.erased(stream, *version)?,
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

    /// Skips positions whose events were left out. Their streams' index can't tell that they are
    /// erased.
    fn skip(&mut self, left_out: Range<u64>) {
        let mut recent = self.tables.active().write();
        for position in left_out {
            recent.skip();
            self.erased.insert(position);
            recent.erased_containers.insert(container_of(position));
        }
    }

    /// Marks the events of a stream up to a version as erased, because some of them were left out.
    /// The change that erased them may be in a later segment.
    fn erased(&mut self, stream: &str, version: u64) -> Result<(), StoreError> {
        let mut state = self.tables.state(self.cache, stream)?;
        let bounds = &mut state.bounds;
        bounds.version = bounds.version.max(StreamVersion::new(version));
        bounds.erased_through = bounds.erased_through.max(StreamVersion::new(version));
        self.change(stream, state)
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
        let state = state.after(&before);
        let from = before.bounds.erased_through.value() + 1;
        let through = state.bounds.erased_through.value();
        let erased = erase(self.tables, self.cache, &mut self.erased, stream, from..=through)?;
        let mut recent = self.tables.active().write();
        recent.erased_containers.extend(erased);
        recent.set_state(stream, state);
        Ok(())
    }
}

/// The number of versions that one step looks up.
const STEP: u64 = 4_096;

/// Marks the events of a stream between two versions as erased. Returns the containers that
/// changed.
pub(crate) fn erase(
    tables: &Tables,
    cache: &Cache,
    erased: &mut Erased,
    stream: &str,
    versions: RangeInclusive<u64>,
) -> Result<Vec<u64>, StoreError> {
    let mut containers = Vec::new();
    let (mut version, through) = versions.into_inner();
    while version <= through {
        let last = through.min(version.saturating_add(STEP - 1));
        for position in tables.positions_between(cache, stream, version..=last)? {
            erased.insert(position);
            if containers.last() != Some(&container_of(position)) {
                containers.push(container_of(position));
            }
        }
        version = last + 1;
    }
    Ok(containers)
}

/// The tags of an event, each `name:value`, decoded from their stored form.
pub(crate) fn tags_of(mut bytes: &[u8]) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk::<2>()?;
        let (tag, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
        bytes = rest;
        std::str::from_utf8(tag).ok()
    })
}
