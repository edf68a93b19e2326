//! The rewrite of a sealed segment without its erased events. Kept records are copied unchanged, so
//! that every checksum still matches. The copy is read back and made durable before it takes the
//! segment's name. After an error or a power cut, the old or the new file is there, whole.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

use bytes::BytesMut;
use factum_kernel::StoreError;

use crate::{
    disk::{File, Files, UNFINISHED},
    erased::Erased,
    error,
    extent::Extents,
    frames::{Frame, Item},
    record::{Record, RecordPlace, put_erased},
    segment::{FRAMES_START, Rewritten, Segment, SegmentHeader, segment_name},
    walk::{End, walk},
};

/// The bytes of kept records in one write.
const WRITE_BYTES: usize = 1 << 20;
/// The bytes between two syncs, so that a sync of the log does not wait for a long one.
const SYNC_BYTES: u32 = 4 << 20;

/// Rewrites the segment of these positions without its erased events. Returns the
/// number of events that it holds; `None` if it was stopped.
///
/// # Errors
/// Those of the disk, and `Corrupt` if the copy is wrong. The file with the segment's name is whole
/// all the same: it is the old one or the rewritten one.
pub(crate) fn rewrite(
    files: &dyn Files,
    positions: RangeInclusive<u64>,
    erased: &Erased,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Option<u32>, StoreError> {
    let (first, last) = positions.into_inner();
    let segment = Segment::open(files, first)?;
    let next = Segment::open(files, last + 1)?.header;
    let name = segment_name(first);
    let unfinished = format!("{name}{UNFINISHED}");
    let at = |e| error::disk("rewriting a segment", &name, e);
    let write = || {
        let file = files.create(&unfinished).map_err(at)?;
        let mut copy = Copy::new(&segment, file);
        if !copy.keep(&segment, &next, erased, is_stopped)? {
            return Ok(None);
        }
        let header = copy.finish(&segment.header, last)?;
        copy.check(&Segment::open_as(files, &unfinished, first)?, &next)?;
        files.rename(&unfinished, &name).and_then(|()| files.sync_names()).map_err(at)?;
        Ok(header.rewritten.map(|rewritten| rewritten.events))
    };
    let written = write();
    if !matches!(written, Ok(Some(_))) {
        // A partial copy is of no use. If this fails, the next opening removes it.
        let _ = files.remove(&unfinished);
    }
    written
}

/// A copy of a segment, in the making.
struct Copy {
    file: Arc<dyn File>,
    name: String,
    seed: u32,
    /// The offset where `out` will be written.
    written: u32,
    synced: u32,
    out: BytesMut,
    extents: Extents,
    /// The highest left-out version of each stream that lost events.
    lost: BTreeMap<String, u64>,
    /// The checksum of everything that was kept.
    digest: u32,
}

impl Copy {
    fn new(segment: &Segment, file: Arc<dyn File>) -> Self {
        let first = segment.header.first;
        Self {
            file,
            name: segment_name(first),
            seed: segment.seed,
            written: FRAMES_START,
            synced: FRAMES_START,
            out: BytesMut::new(),
            extents: Extents::new(first),
            lost: BTreeMap::new(),
            digest: 0,
        }
    }

    /// Copies everything that is not erased. Returns whether it came to the end.
    fn keep(
        &mut self,
        segment: &Segment,
        next: &SegmentHeader,
        erased: &Erased,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<bool, StoreError> {
        let walked = walk(segment, End::Sealed(next), |frame, _| {
            if is_stopped() {
                return Err(StoreError::unavailable("the store is being closed"));
            }
            self.keep_frame(segment.header.first, frame, erased)?;
            if self.out.len() < WRITE_BYTES { Ok(()) } else { self.flush() }
        });
        match walked {
            Err(_) if is_stopped() => return Ok(false),
            Err(error) => return Err(error),
            Ok(walked) => self.extents.original_end = walked.end,
        }
        Ok(!is_stopped())
    }

    fn keep_frame(
        &mut self,
        first: u64,
        frame: &Frame<'_>,
        erased: &Erased,
    ) -> Result<(), StoreError> {
        for item in frame.items() {
            match item.record {
                Record::Event(event) if erased.contains(item.position) => {
                    self.lose(event.stream, event.header.version.value());
                    continue;
                }
                Record::Erased(stream, version) => {
                    self.lose(stream, *version);
                    continue;
                }
                Record::Event(_) | Record::Name(_) | Record::Change(..) => {}
                Record::Document(_) | Record::Commit => {
                    let what = "a document stands among events";
                    return Err(error::damaged(what, first, item.offset.into()));
                }
            }
            let is_event = u32::from(matches!(item.record, Record::Event(_)));
            // A segment has fewer than 2^32 bytes, and so fewer positions.
            let relative = (item.position - first) as u32;
            self.extents.keep(item.offset, item.bytes.len() as u32, relative, is_event);
            self.out.extend_from_slice(item.bytes);
            self.digest = digest(self.digest, &item);
        }
        Ok(())
    }

    fn lose(&mut self, stream: &str, version: u64) {
        match self.lost.get_mut(stream) {
            Some(lost) => *lost = version.max(*lost),
            None => drop(self.lost.insert(stream.into(), version)),
        }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let mut write = || {
            self.file.write_at(&self.out, u64::from(self.written))?;
            self.written += self.out.len() as u32;
            self.out.clear();
            if self.written - self.synced >= SYNC_BYTES {
                self.synced = self.written;
                self.file.sync()?;
            }
            Ok(())
        };
        write().map_err(|e| error::disk("rewriting a segment", &self.name, e))
    }

    /// Writes the records about left-out versions, the table and the header, and makes all of it
    /// durable.
    fn finish(&mut self, before: &SegmentHeader, last: u64) -> Result<SegmentHeader, StoreError> {
        let SegmentHeader { first, base_at, .. } = *before;
        let place = RecordPlace { seed: self.seed, base_at, position: first };
        let notes = self.out.len();
        for (stream, version) in &self.lost {
            put_erased(&mut self.out, place, stream, *version);
        }
        self.extents.positions = (last + 1 - first) as u32;
        self.extents.table = self.extents.kept_end + (self.out.len() - notes) as u32;
        let table = self.extents.encode(self.seed);
        self.out.extend_from_slice(&table);
        self.flush()?;
        let rewritten = Some(Rewritten {
            table: self.extents.table,
            table_len: table.len() as u32,
            events: self.extents.events(),
        });
        let header = SegmentHeader { rewritten, ..*before };
        let written = self.file.write_at(&header.encode(), 0).and_then(|()| self.file.sync());
        written.map_err(|e| error::disk("rewriting a segment", &self.name, e))?;
        Ok(header)
    }

    /// Reads the copy as every reader will, before it replaces the segment.
    fn check(&self, copy: &Segment, next: &SegmentHeader) -> Result<(), StoreError> {
        let wrong = || {
            let message = "the copy of a segment is not what was kept of it, and is not used";
            StoreError::corrupt(format!("{message}: segment={}", copy.header.first))
        };
        let mut found = 0;
        let mut notes = 0;
        walk(copy, End::Sealed(next), |frame, _| {
            for item in frame.items() {
                match item.record {
                    Record::Erased(stream, version) => {
                        notes += 1;
                        if self.lost.get(*stream) != Some(version) {
                            return Err(wrong());
                        }
                        continue;
                    }
                    // In each stream, all erased versions come before all others.
                    Record::Event(event)
                        if self.lost.get(event.stream) >= Some(&event.header.version.value()) =>
                    {
                        return Err(wrong());
                    }
                    _ => found = digest(found, &item),
                }
            }
            Ok(())
        })?;
        if (found, notes) == (self.digest, self.lost.len()) { Ok(()) } else { Err(wrong()) }
    }
}

/// Continues a checksum over records, their positions and their offsets.
fn digest(before: u32, item: &Item<'_, '_>) -> u32 {
    let crc = crc32c::crc32c_append(before, &item.position.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &item.offset.to_le_bytes());
    crc32c::crc32c_append(crc, item.bytes)
}

#[cfg(test)]
mod tests;
