//! A model of a journal's content, in memory and as short as possible.

use std::collections::BTreeMap;

use factum_backend::expectations;
use factum_kernel::{
    AppendBatch, ExpectedRevision, NewEvent, Retention, StreamBounds, StreamChange, StreamId,
    StreamVersion, WriteBatch,
};

/// An event in the model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ModelEvent {
    pub(super) stream: StreamId,
    pub(super) version: u64,
    pub(super) event: NewEvent,
}

/// The documents: revision and value by key.
pub(super) type Known = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

/// The expected content of a journal.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Model {
    /// The events by position, from 1; erased ones are `None`.
    pub(super) events: Vec<Option<ModelEvent>>,
    pub(super) streams: BTreeMap<StreamId, (StreamBounds, Retention)>,
    pub(super) documents: Known,
    /// The least that the next revision can be.
    pub(super) revision: u64,
}

impl Model {
    pub(super) fn bounds(&self, stream: &StreamId) -> StreamBounds {
        self.streams.get(stream).map(|stream| stream.0).unwrap_or_default()
    }

    /// Appends those batches of a group that are valid.
    pub(super) fn append(&mut self, batches: &[AppendBatch]) {
        let mut written = Vec::new();
        for batch in batches {
            let fits = |(stream, expected)| self.bounds(stream).matches(expected);
            if !expectations(batch).all(fits) {
                continue;
            }
            for write in batch.writes() {
                written.push(write.stream.clone());
                for event in &write.events {
                    let (bounds, _) = self.streams.entry(write.stream.clone()).or_default();
                    bounds.version = bounds.version.next();
                    let version = bounds.version;
                    if event.is_deletion() {
                        bounds.deleted_at = version;
                        self.erase(&write.stream, version.previous());
                    }
                    self.events.push(Some(ModelEvent {
                        stream: write.stream.clone(),
                        version: version.value(),
                        event: event.clone(),
                    }));
                }
            }
        }
        written.iter().for_each(|stream| self.retain(stream));
    }

    pub(super) fn change(&mut self, stream: &StreamId, change: StreamChange) {
        match change {
            StreamChange::Retain(retention) => {
                self.streams.entry(stream.clone()).or_default().1 = retention;
                self.retain(stream);
                // A stream without any state does not exist.
                self.streams.retain(|_, known| *known != Default::default());
            }
            StreamChange::TruncateBefore(first) => self.erase(stream, first.previous()),
            _ => {}
        }
    }

    fn retain(&mut self, stream: &StreamId) {
        if let Some((bounds, Retention { events_max: Some(max), .. })) = self.streams.get(stream) {
            self.erase(stream, StreamVersion::new(bounds.version.value().saturating_sub(*max)));
        }
    }

    fn erase(&mut self, stream: &StreamId, through: StreamVersion) {
        for slot in &mut self.events {
            let is_meant =
                |event: &ModelEvent| event.stream == *stream && event.version <= through.value();
            if slot.as_ref().is_some_and(is_meant) {
                *slot = None;
            }
        }
        if let Some((bounds, _)) = self.streams.get_mut(stream) {
            bounds.erased_through = bounds.erased_through.max(through);
        }
    }

    /// Writes those batches of a group that are valid; the first gets this revision. Returns the
    /// revision of each, or the index of its entry with a conflict.
    pub(super) fn write(
        &mut self,
        batches: &[WriteBatch],
        mut next: u64,
    ) -> Vec<Result<u64, usize>> {
        let write = |batch: &WriteBatch| {
            let conflict = batch.entries().iter().position(|entry| {
                let there = self.documents.get(&entry.key[..]).map(|it| it.0);
                match entry.expected {
                    ExpectedRevision::Any => false,
                    ExpectedRevision::Absent => there.is_some(),
                    ExpectedRevision::Exact(revision) => there.unwrap_or(0) != revision.value(),
                }
            });
            if let Some(entry) = conflict {
                return Err(entry);
            }
            for entry in batch.entries() {
                match &entry.value {
                    Some(value) => {
                        self.documents.insert(entry.key.to_vec(), (next, value.to_vec()))
                    }
                    None => self.documents.remove(&entry.key[..]),
                };
            }
            self.revision = next;
            next += 1;
            Ok(self.revision)
        };
        batches.iter().map(write).collect()
    }
}
