//! The documents: a log of their own, of the same make as that of the events, and in memory where
//! in it each document is. Values stay on disk; of a document memory holds the key and its place.

mod reclaim;

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use bytes::{Bytes, BytesMut};
use factum_core::{
    Direction, Document, ExpectedRevision, KeyRange, PAGE_BYTES_MAX, PAGE_EVENTS_MAX, Revision,
    ScanPage, ScanQuery, StoreError, WriteBatch, WriteError,
};

use crate::{
    disk::Files,
    error,
    frame::{self, FrameKind},
    frames::Frame,
    record::{self, DocumentRecord, Record, RecordPlace, take_record},
    segment::{Segment, segment_name},
    tail::{LogTail, TailError},
};

/// The most bytes of one write: it becomes one frame.
pub(crate) const WRITE_BYTES_MAX: usize = 48 << 20;
/// How many documents one step of a clearing removes.
const CLEAR_STEP: usize = 1_000;

/// The documents of a journal.
#[derive(Debug)]
pub(crate) struct Documents {
    files: Arc<dyn Files>,
    index: RwLock<DocumentIndex>,
    writer: Mutex<Option<DocumentWriter>>,
}

/// Where the documents are.
#[derive(Debug, Default)]
pub(crate) struct DocumentIndex {
    slots: BTreeMap<Bytes, Slot>,
    /// By their first revisions.
    pub(crate) segments: BTreeMap<u64, SegmentUse>,
}

/// A segment of the log of documents, and how much of it is still needed.
#[derive(Debug)]
pub(crate) struct SegmentUse {
    pub(crate) segment: Segment,
    /// The bytes of the records that documents are in.
    pub(crate) live: u64,
    /// The bytes of all of its frames.
    pub(crate) total: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    revision: u64,
    /// The first revision of the segment that it is in.
    segment: u64,
    /// What the record's checksum counts as its position.
    position: u64,
    offset: u32,
    len: u32,
    value_len: u32,
}

#[derive(Debug)]
struct DocumentWriter {
    tail: LogTail,
    /// The next revision.
    next: u64,
    buffer: BytesMut,
}

/// A record of the frame that is being written.
struct Written<'a> {
    key: &'a Bytes,
    slot: Option<Slot>,
}

impl DocumentIndex {
    /// Begins a segment.
    pub(crate) fn begin(&mut self, segment: &Segment) {
        let used = SegmentUse { segment: segment.clone(), live: 0, total: 0 };
        self.segments.insert(segment.header.first, used);
    }

    /// Adds a frame that was replayed.
    pub(crate) fn add(&mut self, segment: &Segment, frame: &Frame<'_>, first: u64) {
        let segment = segment.header.first;
        let ends = frame.records.iter().skip(1).map(|(offset, _)| *offset).chain([frame.end]);
        for ((offset, record), end) in frame.records.iter().zip(ends) {
            let Record::Document(DocumentRecord { revision, key, value }) = record else {
                continue;
            };
            let slot = value.map(|value| Slot {
                revision: *revision,
                segment,
                position: first,
                offset: *offset,
                len: end - offset,
                value_len: value.len() as u32,
            });
            self.set(&Bytes::copy_from_slice(key), slot);
        }
        self.count(segment, frame.end);
    }

    fn count(&mut self, segment: u64, end: u32) {
        if let Some(used) = self.segments.get_mut(&segment) {
            used.total = u64::from(end);
        }
    }

    fn set(&mut self, key: &Bytes, slot: Option<Slot>) {
        let before = match slot {
            Some(slot) => {
                if let Some(used) = self.segments.get_mut(&slot.segment) {
                    used.live += u64::from(slot.len);
                }
                self.slots.insert(key.clone(), slot)
            }
            None => self.slots.remove(key),
        };
        if let Some(before) = before
            && let Some(used) = self.segments.get_mut(&before.segment)
        {
            used.live -= u64::from(before.len);
        }
    }
}

impl Documents {
    /// The documents that a replay found; `tail` is `None` where they are only read.
    pub(crate) fn new(
        files: Arc<dyn Files>,
        index: DocumentIndex,
        tail: Option<LogTail>,
        next: u64,
    ) -> Self {
        let writer = tail.map(|tail| DocumentWriter { tail, next, buffer: BytesMut::new() });
        Self { files, index: RwLock::new(index), writer: Mutex::new(writer) }
    }

    /// Replaces what is known, for one who reads beside a writer.
    pub(crate) fn replace(&self, index: DocumentIndex) {
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = index;
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Document>, StoreError> {
        let found = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            let Some((key, slot)) = index.slots.get_key_value(key) else { return Ok(None) };
            (key.clone(), *slot, index.segments[&slot.segment].segment.clone())
        };
        document(found.0, found.1, &found.2).map(Some)
    }

    pub(crate) fn scan(&self, query: &ScanQuery) -> Result<ScanPage, StoreError> {
        query.check()?;
        let (found, more) = self.find(query);
        let documents = found.into_iter().map(|(key, slot, segment)| document(key, slot, &segment));
        Ok(ScanPage::new(query, documents.collect::<Result<_, _>>()?, more))
    }

    /// What belongs on a page, all of one moment; and whether there is more.
    fn find(&self, query: &ScanQuery) -> (Vec<(Bytes, Slot, Segment)>, bool) {
        let documents_max = query.documents_max.min(PAGE_EVENTS_MAX);
        let bytes_max = query.bytes_max.min(PAGE_BYTES_MAX);
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let mut range = within(&index.slots, &query.range);
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some((key, slot)) = match query.direction {
            Direction::Forward => range.next(),
            Direction::Backward => range.next_back(),
        } {
            bytes += key.len() + slot.value_len as usize;
            if found.len() >= documents_max || (bytes > bytes_max && !found.is_empty()) {
                return (found, true);
            }
            found.push((key.clone(), *slot, index.segments[&slot.segment].segment.clone()));
        }
        (found, false)
    }

    pub(crate) fn write(&self, batch: &WriteBatch) -> Result<Revision, WriteError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = writer.as_mut().ok_or_else(closed_or_read_only)?;
        let size: usize = batch
            .entries()
            .iter()
            .map(|entry| entry.key.len() + entry.value.as_ref().map_or(0, Bytes::len))
            .sum();
        if size > WRITE_BYTES_MAX {
            let message = format!("too many bytes in a write: actual={size} max={WRITE_BYTES_MAX}");
            return Err(StoreError::invalid(message).into());
        }
        if let Some(entry) = self.first_conflict(batch) {
            return Err(WriteError::Conflict { entry });
        }
        if batch.entries().is_empty() {
            return Ok(Revision::new(writer.next - 1));
        }
        let revision = writer.next;
        let entries = batch.entries().iter().map(|entry| {
            let value = entry.value.as_deref();
            (&entry.key, DocumentRecord { revision, key: &entry.key, value })
        });
        self.store(writer, size, entries)?;
        // Space is given back on the way; what goes wrong with it comes again with the next write.
        let _ = self.reclaim(writer);
        Ok(Revision::new(revision))
    }

    fn first_conflict(&self, batch: &WriteBatch) -> Option<usize> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        batch.entries().iter().position(|entry| {
            let there = index.slots.get(&entry.key).map(|slot| slot.revision);
            match entry.expected {
                ExpectedRevision::Any => false,
                ExpectedRevision::Absent => there.is_some(),
                ExpectedRevision::Exact(revision) => there != Some(revision.value()),
            }
        })
    }

    /// Writes documents as one frame, durably, and then shows them.
    fn store<'b>(
        &self,
        writer: &mut DocumentWriter,
        size: usize,
        entries: impl Iterator<Item = (&'b Bytes, DocumentRecord<'b>)>,
    ) -> Result<(), WriteError> {
        self.begin(writer, size)?;
        let DocumentWriter { tail, next, buffer } = writer;
        let header = tail.segment.header;
        let place =
            RecordPlace { seed: tail.segment.seed, base_at: header.base_at, position: *next };
        let mut written = Vec::new();
        for (key, document) in entries {
            let start = buffer.len();
            record::put_document(buffer, place, &document);
            let slot = document.value.map(|value| Slot {
                revision: document.revision,
                segment: header.first,
                position: *next,
                offset: tail.end + start as u32,
                len: (buffer.len() - start) as u32,
                value_len: value.len() as u32,
            });
            written.push(Written { key, slot });
        }
        record::put_commit(buffer, place);
        frame::finish(buffer, tail.place(), *next, FrameKind::Group);
        tail.write(buffer).map_err(write_error)?;
        *next += 1;
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        for Written { key, slot } in written {
            index.set(key, slot);
        }
        index.count(header.first, tail.end);
        Ok(())
    }

    fn begin(&self, writer: &mut DocumentWriter, size: usize) -> Result<(), WriteError> {
        let DocumentWriter { tail, next, buffer } = writer;
        tail.check()?;
        if tail.is_full(size, *next) {
            tail.roll(*next, factum_core::Timestamp::EPOCH).map_err(write_error)?;
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            index.begin(&tail.segment);
        }
        frame::begin(buffer);
        Ok(())
    }

    /// Removes some of the documents of a range. The answer: whether there may be more.
    pub(crate) fn clear_step(&self, range: &KeyRange) -> Result<bool, StoreError> {
        let keys: Vec<Bytes> = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            within(&index.slots, range).take(CLEAR_STEP).map(|(key, _)| key.clone()).collect()
        };
        let more = keys.len() == CLEAR_STEP;
        let batch = keys
            .into_iter()
            .fold(WriteBatch::new(), |batch, key| batch.remove(key, ExpectedRevision::Any));
        match self.write(&batch) {
            Ok(_) => Ok(more),
            Err(WriteError::Store(error) | WriteError::Indeterminate(error)) => Err(error),
            Err(other) => Err(StoreError::internal("a clearing had a conflict").with_source(other)),
        }
    }

    #[cfg(test)]
    pub(crate) fn next_revision(&self) -> u64 {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.as_ref().map_or(0, |writer| writer.next)
    }

    /// Marks the log of documents as closed; nothing is written after it.
    pub(crate) fn close(&self) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut writer) = writer.take() {
            writer.tail.close(writer.next);
        }
    }
}

fn within<'i>(
    slots: &'i BTreeMap<Bytes, Slot>,
    range: &KeyRange,
) -> std::collections::btree_map::Range<'i, Bytes, Slot> {
    let to = match &range.to {
        // The other way round is an empty range to us, and a panic to the map.
        Some(to) if *to < range.from => Bound::Excluded(range.from.clone()),
        Some(to) => Bound::Excluded(to.clone()),
        None => Bound::Unbounded,
    };
    slots.range((Bound::Included(range.from.clone()), to))
}

fn document(key: Bytes, slot: Slot, segment: &Segment) -> Result<Document, StoreError> {
    let first = segment.header.first;
    let mut bytes = vec![0; slot.len as usize];
    let read = segment.file.fill_at(&mut bytes, u64::from(slot.offset));
    read.map_err(|e| error::disk("reading a document", &segment_name(first), e))?;
    let place = RecordPlace {
        seed: segment.seed,
        base_at: segment.header.base_at,
        position: slot.position,
    };
    match take_record(&mut &bytes[..], place) {
        Some(Record::Document(DocumentRecord { key: found, value: Some(value), .. }))
            if key == found =>
        {
            let start = value.as_ptr() as usize - bytes.as_ptr() as usize;
            let range = start..start + value.len();
            let value = Bytes::from(bytes).slice(range);
            Ok(Document { key, revision: Revision::new(slot.revision), value })
        }
        _ => Err(error::damaged("a document is not what was written", first, slot.offset.into())),
    }
}

fn closed_or_read_only() -> StoreError {
    StoreError::closed()
}

fn write_error(error: TailError) -> WriteError {
    match error {
        TailError::NotWritten(error) => WriteError::Store(error),
        TailError::Unknown(error) => WriteError::Indeterminate(error),
    }
}
