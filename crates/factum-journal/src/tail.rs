//! The writing end of the log: one write and one sync per frame, into a file that was filled with
//! zeros before.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use factum_kernel::{Clock, IdSource, Lineage, StoreError, Timestamp};

use crate::{
    disk::{File, Files, UNFINISHED},
    error,
    frame::{self, FrameKind, FramePlace},
    segment::{FRAMES_START, Segment, SegmentHeader, segment_name},
    synced::{Reach, Synced},
};

/// The bytes of a log's first segment. Each further segment is larger, up to the size in the
/// options.
pub(crate) const FIRST_SEGMENT_BYTES: u32 = 256 << 10;
/// The factor by which segments grow.
const SEGMENT_GROWTH: u32 = 4;
/// The largest end of a segment. Offsets in a segment have 32 bits.
const SEGMENT_END_MAX: u64 = 3 << 30;
/// The zeros of one write.
const ZEROS: &[u8] = &[0; 256 << 10];
/// The bytes of zeros between two syncs, so that a sync of the log waits for no more than that.
const ZEROS_SYNC_STEP: usize = 4 << 20;
/// The name of the file that will be the next segment.
const SPARE: &str = "spare";

/// A failed write, and what is known of its effect.
#[derive(Debug)]
pub(crate) enum TailError {
    /// No reader will ever see the write, and the log goes on.
    NotWritten(StoreError),
    /// The write may or may not be there after the next opening. Until then the log accepts
    /// nothing.
    Unknown(StoreError),
}

/// A file of zeros that is not a segment yet.
#[derive(Debug)]
struct Zeroed {
    file: Arc<dyn File>,
    name: String,
    /// The planned size of the segment in bytes. The file has as many zeros, unless the disk is
    /// full.
    bytes: u32,
}

impl Zeroed {
    /// Makes a file, durable except for its name. No two calls use the same number.
    fn make(files: &dyn Files, number: u64, bytes: u32) -> Result<Self, StoreError> {
        let name = format!("{SPARE}-{number}{UNFINISHED}");
        let write = || -> io::Result<Arc<dyn File>> {
            let file = files.create(&name)?;
            for from in (0..bytes).step_by(ZEROS_SYNC_STEP) {
                write_zeros(&*file, from, bytes.min(from + ZEROS_SYNC_STEP as u32))?;
                file.sync()?;
            }
            Ok(file)
        };
        let written = match write() {
            // Zeros only make the log faster. An empty file grows with each frame, and the frames
            // get the space that is left.
            Err(e) if error::is_full(&e) => files.create(&name),
            written => written,
        };
        if written.is_err() {
            // On a full disk its space is needed. If this fails, the next opening removes the file.
            let _ = files.remove(&name);
        }
        let file = written.map_err(|e| error::disk("writing zeros ahead of the log", &name, e))?;
        Ok(Self { file, name, bytes })
    }

    /// Puts the file in place as the segment with this header.
    fn place(self, files: &dyn Files, header: SegmentHeader) -> Result<Segment, TailError> {
        let name = segment_name(header.first);
        let at = |e| error::disk("beginning a segment", &name, e);
        // The header is durable before the name is, because a reader that finds the name needs it.
        let written = self.file.write_at(&header.encode(), 0).and_then(|()| self.file.sync());
        if let Err(e) = written {
            // If this fails, the next opening removes the file.
            let _ = files.remove(&self.name);
            return Err(TailError::NotWritten(at(e)));
        }
        let named = files.rename(&self.name, &name).and_then(|()| files.sync_names());
        named.map_err(|e| TailError::Unknown(at(e)))?;
        Ok(Segment::new(header, self.file))
    }
}

/// The file that will be the next segment, filled with zeros in the background.
#[derive(Debug, Default)]
pub(crate) struct Spare(Mutex<SpareState>);

#[derive(Debug, Default)]
struct SpareState {
    ready: Option<Zeroed>,
    /// The number of files made. No name is used twice, because the earlier file may be a segment
    /// by now.
    made: u64,
}

impl Spare {
    /// Makes the file if it does not exist.
    pub(crate) fn prepare(&self, files: &dyn Files, bytes: u32) -> Result<(), StoreError> {
        // Held during the write: a writer that needs the file waits instead of making another.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.ready.is_none() {
            let zeroed = state.make(files, bytes)?;
            state.ready = Some(zeroed);
        }
        Ok(())
    }

    fn take(&self, files: &dyn Files, bytes: u32) -> Result<Zeroed, StoreError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.ready.take().map_or_else(|| state.make(files, bytes), Ok)
    }
}

impl SpareState {
    fn make(&mut self, files: &dyn Files, bytes: u32) -> Result<Zeroed, StoreError> {
        self.made += 1;
        Zeroed::make(files, self.made, bytes)
    }
}

pub(crate) fn write_zeros(file: &dyn File, mut from: u32, to: u32) -> io::Result<()> {
    while from < to {
        let step = (to - from).min(ZEROS.len() as u32);
        file.write_at(&ZEROS[..step as usize], u64::from(from))?;
        from += step;
    }
    Ok(())
}

/// Begins a log: puts its first segment in place, durably.
pub(crate) fn first_segment(
    files: &dyn Files,
    lineage: Lineage,
    salt: u64,
    bytes: u32,
) -> Result<Segment, StoreError> {
    let header = SegmentHeader {
        lineage,
        salt,
        first: 1,
        base_at: Timestamp::EPOCH,
        previous: 0,
        previous_end: 0,
        rewritten: None,
    };
    begin_segment(files, header, bytes)
}

/// Puts an empty segment in place, durably, as small as that of a new log.
pub(crate) fn begin_segment(
    files: &dyn Files,
    header: SegmentHeader,
    bytes: u32,
) -> Result<Segment, StoreError> {
    let zeroed = Zeroed::make(files, 0, bytes.min(FIRST_SEGMENT_BYTES))?;
    zeroed.place(files, header).map_err(|e| match e {
        TailError::NotWritten(error) | TailError::Unknown(error) => error,
    })
}

/// The writing end of the log.
#[derive(Debug)]
pub(crate) struct LogTail {
    files: Arc<dyn Files>,
    ids: Arc<dyn IdSource>,
    clock: Arc<dyn Clock>,
    pub(crate) segment: Segment,
    /// The offset where the next frame begins.
    pub(crate) end: u32,
    /// The planned size of the segment in bytes. It was filled with as many zeros, if there was
    /// space.
    capacity: u32,
    segment_bytes: u32,
    pub(crate) spare: Arc<Spare>,
    /// True once the next segment was asked for.
    is_spare_requested: bool,
    synced: Synced,
    /// The reason why nothing is accepted any more.
    failure: Option<StoreError>,
}

/// The means of a tail to write.
#[derive(Debug, Clone)]
pub(crate) struct TailOptions {
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) segment_bytes: u32,
}

impl LogTail {
    pub(crate) fn new(
        files: Arc<dyn Files>,
        segment: Segment,
        end: u32,
        options: TailOptions,
    ) -> Result<Self, StoreError> {
        let len = segment.file.len().map_err(|e| error::disk("opening the log", "", e))?;
        let capacity = u32::try_from(len).unwrap_or(u32::MAX);
        let TailOptions { ids, clock, segment_bytes } = options;
        let opening = *ids.uuid(clock.now()).as_bytes();
        let synced = Synced::begin(&*files, opening, (segment.header.first, end))?;
        Ok(Self {
            files,
            ids,
            clock,
            segment,
            end,
            capacity,
            segment_bytes,
            spare: Arc::default(),
            is_spare_requested: false,
            synced,
            failure: None,
        })
    }

    /// Checks that the log accepts frames.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        // This is not stored as a failure: if the folder comes back to its path, the log goes on,
        // because nothing was written in between.
        if let Some(path) = self.files.moved_from() {
            return Err(error::moved(&path));
        }
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// The place of the next frame.
    pub(crate) fn place(&self) -> FramePlace {
        FramePlace { salt: self.segment.header.salt, seed: self.segment.seed, offset: self.end }
    }

    /// Returns whether a frame of this many bytes goes into the next segment. `next` is the next
    /// position.
    pub(crate) fn is_full(&self, bytes: usize, next: u64) -> bool {
        let end = self.end as usize + bytes;
        // Segments are named by their first positions. A segment without events can't have a
        // successor, and so it grows further with changes and marks.
        next > self.segment.header.first && end > self.capacity.min(self.segment_bytes) as usize
    }

    /// Returns true once per segment, when it is time to prepare the next segment.
    pub(crate) fn request_spare(&mut self) -> bool {
        let is_wanted = !self.is_spare_requested && self.end > self.capacity / 2;
        self.is_spare_requested |= is_wanted;
        is_wanted
    }

    /// The planned size of the next segment in bytes.
    pub(crate) fn next_capacity(&self) -> u32 {
        let next = self.capacity.max(FIRST_SEGMENT_BYTES).saturating_mul(SEGMENT_GROWTH);
        next.min(self.segment_bytes)
    }

    /// Begins the next segment, for the event at `first`.
    pub(crate) fn roll(&mut self, first: u64, last_at: Timestamp) -> Result<(), TailError> {
        let not_written = TailError::NotWritten;
        let bytes = self.next_capacity();
        let zeroed = self.spare.take(&*self.files, bytes).map_err(not_written)?;
        let capacity = zeroed.bytes;
        let header = SegmentHeader {
            lineage: self.segment.header.lineage,
            salt: new_salt(&*self.ids, self.clock.now()),
            first,
            base_at: last_at,
            previous: self.segment.header.first,
            previous_end: self.end,
            rewritten: None,
        };
        match zeroed.place(&*self.files, header) {
            Ok(segment) => {
                (self.segment, self.end, self.capacity) = (segment, FRAMES_START, capacity);
                self.is_spare_requested = false;
                Ok(())
            }
            // The next segment may be in place, and its header records the end of this one.
            Err(TailError::Unknown(error)) => {
                self.fail(&error);
                Err(not_written(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes a frame, made for [`Self::place`], and makes it durable.
    pub(crate) fn write(&mut self, frame: &[u8]) -> Result<(), TailError> {
        let file = self.segment.file.clone();
        let at = u64::from(self.end);
        let name = segment_name(self.segment.header.first);
        if at + frame.len() as u64 > SEGMENT_END_MAX {
            let message = "the segment holds too many changes without an event, append one first";
            return Err(TailError::NotWritten(StoreError::unavailable(message)));
        }
        if let Err(e) = file.write_at(frame, at) {
            let error = error::disk("writing to the log", &name, e);
            return Err(self.take_back(frame.len(), error));
        }
        if let Err(e) = file.sync() {
            let error = error::disk("syncing the log", &name, e);
            self.fail(&error);
            return Err(TailError::Unknown(error));
        }
        self.end += frame.len() as u32;
        self.synced.record(self.reach());
        Ok(())
    }

    /// Overwrites with zeros a frame that may have been written in part. If that fails, the log
    /// accepts nothing any more.
    fn take_back(&mut self, len: usize, error: StoreError) -> TailError {
        let file = self.segment.file.clone();
        // The file may have grown by only a part of the frame. Zeros after that part would grow it.
        let end = file.len().map(|len_now| len_now.min(u64::from(self.end) + len as u64));
        let zeros = end.and_then(|end| {
            write_zeros(&*file, self.end, u32::try_from(end).unwrap_or(u32::MAX))?;
            file.sync()
        });
        match zeros {
            Ok(()) => TailError::NotWritten(error),
            Err(_) => {
                self.fail(&error);
                TailError::Unknown(error)
            }
        }
    }

    /// The durable end of the log.
    fn reach(&self) -> Reach {
        (self.segment.header.first, self.end)
    }

    fn fail(&mut self, error: &StoreError) {
        self.synced.record_failure(self.reach());
        let failure = StoreError::unavailable(
            "a write or a sync failed, and what the disk holds is not known; open the store \
             again",
        );
        self.failure = Some(failure.with_source(error.clone()));
    }

    /// Accepts nothing any more: the writer thread has died, and another process may own the
    /// folder.
    pub(crate) fn abandon(&mut self) {
        let message = "the writer thread has died, its panic message tells why; open again";
        self.failure.get_or_insert_with(|| StoreError::internal(message));
    }

    /// Ends writing as if the process had been killed, without a mark.
    #[cfg(test)]
    pub(crate) fn kill(&mut self) {
        self.failure = Some(StoreError::closed());
    }

    /// Marks the log as closed, so that later damage at its end can be recognised as damage.
    pub(crate) fn close(&mut self, next: u64) {
        if self.failure.is_none() && self.end > FRAMES_START {
            let mark = frame::mark(self.place(), next, FrameKind::Close);
            // Without the mark, the next opening works as after a crash, which loses nothing.
            let _ = self.write(&mark);
        }
    }
}

/// Makes a number that no other segment has.
pub(crate) fn new_salt(ids: &dyn IdSource, now: Timestamp) -> u64 {
    let (high, low) = ids.uuid(now).as_u64_pair();
    // The random bits of a UUIDv7 are the low ones. Zero would look like bytes never written.
    (high.rotate_left(32) ^ low) | 1
}

#[cfg(test)]
mod tests;
