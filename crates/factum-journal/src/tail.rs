//! The end of the log, where it grows: one write and one sync per frame, into a file that was
//! written with zeros before.

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

/// The first segment of a log; each further one is larger, up to what the options say.
pub(crate) const FIRST_SEGMENT_BYTES: u32 = 256 << 10;
/// How much larger.
const SEGMENT_GROWTH: u32 = 4;
/// Offsets in a segment have 32 bits.
const SEGMENT_END_MAX: u64 = 3 << 30;
/// Zeros are written so many at a time.
const ZEROS: &[u8] = &[0; 256 << 10];
/// And synced after so many: the log's own syncs wait for no more than that.
const ZEROS_SYNC_STEP: usize = 4 << 20;
/// The file that will be the next segment.
const SPARE: &str = "spare";

/// What went wrong with a write, and what is known of it.
#[derive(Debug)]
pub(crate) enum TailError {
    /// Nothing of it will ever be seen, and the log goes on.
    NotWritten(StoreError),
    /// It may or may not be there after reopening. The log accepts nothing until then.
    Unknown(StoreError),
}

/// A file of zeros that is no segment yet.
#[derive(Debug)]
struct Zeroed {
    file: Arc<dyn File>,
    name: String,
    /// How large the segment may become: as many zeros, unless the disk has no room for them.
    bytes: u32,
}

impl Zeroed {
    /// Makes a file, durable but for its name; nobody else makes one of this name.
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
            // They only make the log faster. Emptied, the file grows with each frame, and the room
            // that there is goes to those.
            Err(e) if error::is_full(&e) => files.create(&name),
            written => written,
        };
        if written.is_err() {
            // On a full disk its room is needed. What stays is removed at the next opening.
            let _ = files.remove(&name);
        }
        let file = written.map_err(|e| error::disk("writing zeros ahead of the log", &name, e))?;
        Ok(Self { file, name, bytes })
    }

    /// Puts the file in place as the segment that a header says.
    fn place(self, files: &dyn Files, header: SegmentHeader) -> Result<Segment, TailError> {
        let name = segment_name(header.first);
        let at = |e| error::disk("beginning a segment", &name, e);
        // Whoever finds the name must find the header, so that comes first.
        let written = self.file.write_at(&header.encode(), 0).and_then(|()| self.file.sync());
        if let Err(e) = written {
            // As above.
            let _ = files.remove(&self.name);
            return Err(TailError::NotWritten(at(e)));
        }
        let named = files.rename(&self.name, &name).and_then(|()| files.sync_names());
        named.map_err(|e| TailError::Unknown(at(e)))?;
        Ok(Segment::new(header, self.file))
    }
}

/// The file that will be the next segment, written with zeros in the background.
#[derive(Debug, Default)]
pub(crate) struct Spare(Mutex<SpareState>);

#[derive(Debug, Default)]
struct SpareState {
    ready: Option<Zeroed>,
    /// How many were made: one is never made over another, which may be a segment by now.
    made: u64,
}

impl Spare {
    /// Makes the file if it is not there.
    pub(crate) fn prepare(&self, files: &dyn Files, bytes: u32) -> Result<(), StoreError> {
        // Held while the file is written: who needs it meanwhile waits instead of making another.
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

/// Begins a log: its first segment, durably in place.
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

/// The end of the log, where it grows.
#[derive(Debug)]
pub(crate) struct LogTail {
    files: Arc<dyn Files>,
    ids: Arc<dyn IdSource>,
    clock: Arc<dyn Clock>,
    pub(crate) segment: Segment,
    /// Where the next frame begins.
    pub(crate) end: u32,
    /// How large the segment may become: with how many zeros it was written, if there was room.
    capacity: u32,
    segment_bytes: u32,
    pub(crate) spare: Arc<Spare>,
    /// The next segment is being made ready, or was.
    is_spare_wanted: bool,
    synced: Synced,
    /// Why nothing is accepted any more.
    failure: Option<StoreError>,
}

/// How a tail is to write.
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
            is_spare_wanted: false,
            synced,
            failure: None,
        })
    }

    /// Whether the log accepts frames.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        // Found again under its name, it goes on: nothing was written meanwhile.
        if let Some(path) = self.files.moved_from() {
            return Err(error::moved(&path));
        }
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Where the next frame stands.
    pub(crate) fn place(&self) -> FramePlace {
        FramePlace { salt: self.segment.header.salt, seed: self.segment.seed, offset: self.end }
    }

    /// Whether a frame of so many bytes belongs into the next segment, for the position `next`.
    pub(crate) fn is_full(&self, bytes: usize, next: u64) -> bool {
        let end = self.end as usize + bytes;
        // Segments are named by their first positions: one without any can't have a successor,
        // and so grows on with changes and marks.
        next > self.segment.header.first && end > self.capacity.min(self.segment_bytes) as usize
    }

    /// Whether the next segment should be made ready now; said once for each segment.
    pub(crate) fn wants_spare(&mut self) -> bool {
        let is_wanted = !self.is_spare_wanted && self.end > self.capacity / 2;
        self.is_spare_wanted |= is_wanted;
        is_wanted
    }

    /// How large the next segment becomes.
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
                self.is_spare_wanted = false;
                Ok(())
            }
            // The next segment may be in place, and says where this one ends.
            Err(TailError::Unknown(error)) => {
                self.fail(&error);
                Err(not_written(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes a frame and makes it durable. It stands at [`place`](Self::place).
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
        self.synced.tell(self.reach());
        Ok(())
    }

    /// Some of the frame may be in the file. Zeros over all of it, or nothing is accepted any more.
    fn take_back(&mut self, len: usize, error: StoreError) -> TailError {
        let file = self.segment.file.clone();
        // The file may have grown by a part of the frame only; zeros behind that would grow it.
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

    /// Up to where the log is durable.
    fn reach(&self) -> Reach {
        (self.segment.header.first, self.end)
    }

    fn fail(&mut self, error: &StoreError) {
        self.synced.tell_failure(self.reach());
        let failure = StoreError::unavailable(
            "the disk refused a write or a sync, and what it holds is not known; open the store \
             again",
        );
        self.failure = Some(failure.with_source(error.clone()));
    }

    /// Accepts nothing any more: who wrote beside it has died, and the folder may be another's.
    pub(crate) fn abandon(&mut self) {
        let message = "the writer thread has died, its panic message tells why; open again";
        self.failure.get_or_insert_with(|| StoreError::internal(message));
    }

    /// As if the process were killed: nothing is written any more, no mark either.
    #[cfg(test)]
    pub(crate) fn kill(&mut self) {
        self.failure = Some(StoreError::closed());
    }

    /// Marks the log as closed, so that damage at its end will be known as damage.
    pub(crate) fn close(&mut self, next: u64) {
        if self.failure.is_none() && self.end > FRAMES_START {
            let mark = frame::mark(self.place(), next, FrameKind::Close);
            // Without the mark the log is opened as after a crash, which loses nothing.
            let _ = self.write(&mark);
        }
    }
}

/// A number that no other segment has.
pub(crate) fn new_salt(ids: &dyn IdSource, now: Timestamp) -> u64 {
    let (high, low) = ids.uuid(now).as_u64_pair();
    // The random bits of a UUIDv7 are the low ones; zero would look like bytes never written.
    (high.rotate_left(32) ^ low) | 1
}

#[cfg(test)]
mod tests;
