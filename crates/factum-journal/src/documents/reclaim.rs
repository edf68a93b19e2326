//! Giving space back: what is still needed of the oldest segment is written once more at the end,
//! and the segment removed.

use std::{io, sync::PoisonError};

use bytes::Bytes;
use factum_core::{Document, StoreError, WriteError};

use super::{DocumentWriter, Documents, Slot, document};
use crate::{
    error,
    record::DocumentRecord,
    segment::{Segment, segment_name},
};

/// Less than this is not worth the work.
const GARBAGE_BYTES_MIN: u64 = 4 << 20;
/// Documents are written once more so many bytes at a time.
const COPY_BYTES: usize = 1 << 20;

impl Documents {
    /// Removes the oldest segment, if more than half of all is no longer needed.
    pub(super) fn reclaim(&self, writer: &mut DocumentWriter) -> Result<(), WriteError> {
        let Some(oldest) = self.to_reclaim() else { return Ok(()) };
        while let Some(documents) = self.some_of(&oldest)? {
            let size = documents.iter().map(|d| d.key.len() + d.value.len()).sum();
            let entries = documents.iter().map(|document| {
                let Document { key, revision, value } = document;
                let revision = revision.value();
                (key, DocumentRecord { revision, key, value: Some(value) })
            });
            // Durable at its new place before it goes from the old one.
            self.store(writer, size, entries)?;
        }
        // Durably gone before the next one can go: it may hold a document whose removal stands in
        // there.
        let first = oldest.header.first;
        let name = segment_name(first);
        let removed = match self.files.remove(&name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
        let removed = removed.and_then(|()| self.files.sync_names());
        removed.map_err(|e| error::disk("removing old documents", &name, e))?;
        self.index.write().unwrap_or_else(PoisonError::into_inner).segments.remove(&first);
        Ok(())
    }

    fn to_reclaim(&self) -> Option<Segment> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        if index.segments.len() < 2 {
            return None;
        }
        let total: u64 = index.segments.values().map(|used| used.total).sum();
        let live: u64 = index.segments.values().map(|used| used.live).sum();
        let garbage = total.saturating_sub(live);
        if garbage < GARBAGE_BYTES_MIN || garbage < live {
            return None;
        }
        index.segments.values().next().map(|used| used.segment.clone())
    }

    /// Some of the documents that are in a segment.
    fn some_of(&self, segment: &Segment) -> Result<Option<Vec<Document>>, StoreError> {
        let found: Vec<(Bytes, Slot)> = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            let mut bytes = 0;
            let is_in = |slot: &Slot| slot.segment == segment.header.first;
            let slots = index.slots.iter().filter(|(_, slot)| is_in(slot));
            let some = slots.take_while(|(_, slot)| {
                let is_more = bytes < COPY_BYTES;
                bytes += slot.len as usize;
                is_more
            });
            some.map(|(key, slot)| (key.clone(), *slot)).collect()
        };
        if found.is_empty() {
            return Ok(None);
        }
        let documents = found.into_iter().map(|(key, slot)| document(key, slot, segment));
        documents.collect::<Result<_, _>>().map(Some)
    }
}
