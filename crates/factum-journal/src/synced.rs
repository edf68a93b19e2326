//! The file that holds the end of the durable log, for readers in other processes.
//!
//! The file is never synced, and the writer never relies on it: after a power cut it may be old,
//! empty or missing. While there is a writer, readers read up to the recorded end. Without a
//! writer, the recorded end is the least that must be there, and readers go on to the end of the
//! frames.

use std::{io, sync::Arc};

use factum_kernel::StoreError;

use crate::{
    disk::{File, Files},
    error,
    number::{u32_at, u64_at},
};

/// The name of the file.
pub(crate) const SYNCED: &str = "synced";

/// The bytes of the recorded end with its checksum. Older versions write and read only these.
const REACH_BYTES: usize = 16;
/// The bytes with the number of the opening, which tells readers that another writer has come.
const BYTES: usize = 32;
/// In place of the opening's number: a writer is just coming, and the recorded end is not from it.
const OPENING: [u8; 16] = [0xff; 16];
/// In place of the opening's number: a sync failed. The system may show frames that the disk does
/// not have, so only the recorded end is known to be durable, until the next opening.
const FAILED: [u8; 16] = [0xfe; 16];
/// In place of the opening's number: a sync failed during the opening of the log. The recorded end
/// may be old.
const DOUBTFUL: [u8; 16] = [0xfd; 16];

/// A place in a log: the segment, and the offset in it.
pub(crate) type Reach = (u64, u32);

/// The content of the file at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Recorded {
    reach: Option<Reach>,
    opening: [u8; 16],
}

impl Recorded {
    /// Reads the file. A missing file is like an empty one.
    pub(crate) fn read(files: &dyn Files) -> Result<Self, StoreError> {
        let read = |file: &dyn File| -> io::Result<Self> {
            let mut bytes = [0; BYTES];
            let len = file.fill_at(&mut bytes, 0)?;
            let opening = bytes[REACH_BYTES..].try_into().expect("sixteen bytes");
            Ok(Self { reach: decode(&bytes[..len]), opening })
        };
        match files.open(SYNCED).and_then(|file| read(&*file)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            recorded => recorded.map_err(|e| error::disk("reading the durable end", SYNCED, e)),
        }
    }

    /// The end up to which the log is at least durable.
    pub(crate) fn reach(&self) -> Option<Reach> {
        self.reach
    }

    /// The durable end of the log, if a working writer recorded it.
    pub(crate) fn writer_end(&self) -> Option<Reach> {
        self.reach.filter(|_| ![OPENING, DOUBTFUL].contains(&self.opening))
    }

    /// The end up to which a log without a writer may be read; `None`: the end of its frames.
    pub(crate) fn end_without_writer(&self) -> Result<Option<Reach>, StoreError> {
        match self.opening {
            FAILED => Ok(self.reach),
            DOUBTFUL => Err(StoreError::unavailable(
                "a sync failed when the journal was last opened, so its durable end is not \
                known; open it for writing first",
            )),
            _ => Ok(None),
        }
    }
}

/// The file, opened by a writer.
#[derive(Debug)]
pub(crate) struct Synced(Arc<dyn File>);

impl Synced {
    /// Announces a writer, before readers can notice it by other means.
    pub(crate) fn announce(files: &dyn Files) -> Result<(), StoreError> {
        // If the writer fails to open, an earlier failure still counts.
        if [FAILED, DOUBTFUL].contains(&Recorded::read(files)?.opening) {
            return Ok(());
        }
        Self::replace_opening(files, OPENING)
    }

    /// Records that a writer could not make sure of the end of the log, and has gone.
    pub(crate) fn doubt(files: &dyn Files) -> Result<(), StoreError> {
        Self::replace_opening(files, DOUBTFUL)
    }

    fn replace_opening(files: &dyn Files, with: [u8; 16]) -> Result<(), StoreError> {
        let write = |file: Arc<dyn File>| file.write_at(&with, REACH_BYTES as u64);
        match files.open(SYNCED).and_then(write) {
            // A missing file records nothing, and no reader takes that for a writer's end.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.map_err(|e| error::disk("opening", SYNCED, e)),
        }
    }

    /// Creates the file, for the opening with this number.
    pub(crate) fn begin(
        files: &dyn Files,
        opening: [u8; 16],
        reach: Reach,
    ) -> Result<Self, StoreError> {
        let file = files.create(SYNCED).map_err(|e| error::disk("opening", SYNCED, e))?;
        let recorded = [encode(reach), opening].concat();
        // If this fails, readers see less than there is, and nothing wrong.
        let _ = file.write_at(&recorded, 0);
        Ok(Self(file))
    }

    /// Records the durable end of the log.
    pub(crate) fn record(&self, reach: Reach) {
        // If this fails, readers see less than there is, and nothing wrong.
        let _ = self.0.write_at(&encode(reach), 0);
    }

    /// Records that a sync failed, and that nothing after this end is known to be durable.
    pub(crate) fn record_failure(&self, reach: Reach) {
        // If this fails, readers of the log may later, without a writer, see more than the disk
        // has.
        let _ = self.0.write_at(&[encode(reach), FAILED].concat(), 0);
    }
}

/// Records the durable end of a repaired log; `None`: the recorded end no longer counts. Writes in
/// place, so that processes that have the file open see it.
pub(crate) fn record_repaired(files: &dyn Files, reach: Option<Reach>) -> Result<(), StoreError> {
    // No writer has this number, so readers see that the log is another one.
    let recorded = [reach.map_or([0; REACH_BYTES], encode), [0; 16]].concat();
    let record = |file: Arc<dyn File>| {
        file.write_at(&recorded, 0)?;
        file.sync()
    };
    match files.open(SYNCED).and_then(record) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        recorded => {
            recorded.map_err(|e| error::disk("ending the log before the damage", SYNCED, e))
        }
    }
}

fn encode((segment, end): Reach) -> [u8; REACH_BYTES] {
    let mut bytes = [0; REACH_BYTES];
    bytes[..8].copy_from_slice(&segment.to_le_bytes());
    bytes[8..12].copy_from_slice(&end.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..12]);
    bytes[12..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Reach> {
    let bytes = bytes.get(..REACH_BYTES)?;
    let is_good = crc32c::crc32c(&bytes[..12]) == u32_at(bytes, 12);
    is_good.then(|| (u64_at(bytes, 0), u32_at(bytes, 8)))
}
