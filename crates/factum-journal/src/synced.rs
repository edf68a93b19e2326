//! The file that says how far a log is durable, for readers in other processes.
//!
//! It is never synced, and the writer never believes it: after a power cut it may be old, empty or
//! missing. Beside a writer readers go as far as it says. Where nothing writes, it says what must
//! be there at least, and readers go on to where the frames end.

use std::{io, sync::Arc};

use factum_kernel::StoreError;

use crate::{
    disk::{File, Files},
    error,
    number::{u32_at, u64_at},
};

/// The name of the file.
pub(crate) const SYNCED: &str = "synced";

/// How far, with a checksum; older versions write and read no more.
const REACH_BYTES: usize = 16;
/// And the number of the opening, by which readers see that another writer has come.
const BYTES: usize = 32;
/// In place of a number: a writer is just coming, and what is said of how far is not its word.
const OPENING: [u8; 16] = [0xff; 16];
/// In place of a number: a sync failed. The system may show frames that the disk does not have, so
/// that no more than is said is known to be durable, until the next opening.
const FAILED: [u8; 16] = [0xfe; 16];
/// In place of a number: a sync failed while the log was opened, when what is said may be old.
const DOUBTFUL: [u8; 16] = [0xfd; 16];

/// A place in a log: the segment, and the offset in it.
pub(crate) type Reach = (u64, u32);

/// All that the file says at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Told {
    reach: Option<Reach>,
    opening: [u8; 16],
}

impl Told {
    /// What is said now; nothing if the file is missing.
    pub(crate) fn read(files: &dyn Files) -> Result<Self, StoreError> {
        let read = |file: &dyn File| -> io::Result<Self> {
            let mut bytes = [0; BYTES];
            let len = file.fill_at(&mut bytes, 0)?;
            let opening = bytes[REACH_BYTES..].try_into().expect("sixteen bytes");
            Ok(Self { reach: decode(&bytes[..len]), opening })
        };
        match files.open(SYNCED).and_then(|file| read(&*file)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            told => told.map_err(|e| error::disk("asking how far the log is durable", SYNCED, e)),
        }
    }

    /// How far the log is durable at least.
    pub(crate) fn reach(&self) -> Option<Reach> {
        self.reach
    }

    /// How far the writer that is at work says that its log is durable.
    pub(crate) fn of_writer(&self) -> Option<Reach> {
        self.reach.filter(|_| ![OPENING, DOUBTFUL].contains(&self.opening))
    }

    /// How far a log may be read that nothing writes; `None`: to its end.
    pub(crate) fn of_none(&self) -> Result<Option<Reach>, StoreError> {
        match self.opening {
            FAILED => Ok(self.reach),
            DOUBTFUL => Err(StoreError::unavailable(
                "the disk refused a sync when the journal was opened last, and how much of it is \
                 durable is not known; open it for writing first",
            )),
            _ => Ok(None),
        }
    }
}

/// The file, as a writer holds it.
#[derive(Debug)]
pub(crate) struct Synced(Arc<dyn File>);

impl Synced {
    /// Says that a writer is coming, before readers can know of it otherwise.
    pub(crate) fn announce(files: &dyn Files) -> Result<(), StoreError> {
        // If it does not come, what failed before it counts still.
        if [FAILED, DOUBTFUL].contains(&Told::read(files)?.opening) {
            return Ok(());
        }
        Self::replace_opening(files, OPENING)
    }

    /// Says that a writer could not make sure of the end of the log, and has gone.
    pub(crate) fn doubt(files: &dyn Files) -> Result<(), StoreError> {
        Self::replace_opening(files, DOUBTFUL)
    }

    fn replace_opening(files: &dyn Files, with: [u8; 16]) -> Result<(), StoreError> {
        let write = |file: Arc<dyn File>| file.write_at(&with, REACH_BYTES as u64);
        match files.open(SYNCED).and_then(write) {
            // Nothing is said, which no reader takes for a writer's word.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.map_err(|e| error::disk("opening", SYNCED, e)),
        }
    }

    /// Begins the file, for the opening with this number.
    pub(crate) fn begin(
        files: &dyn Files,
        opening: [u8; 16],
        reach: Reach,
    ) -> Result<Self, StoreError> {
        let file = files.create(SYNCED).map_err(|e| error::disk("opening", SYNCED, e))?;
        let told = [encode(reach), opening].concat();
        // As below.
        let _ = file.write_at(&told, 0);
        Ok(Self(file))
    }

    /// Says how far the log is durable now.
    pub(crate) fn tell(&self, reach: Reach) {
        // Without it readers see less than there is, and nothing wrong.
        let _ = self.0.write_at(&encode(reach), 0);
    }

    /// Says that nothing is known of what is behind.
    pub(crate) fn tell_failure(&self, reach: Reach) {
        // Without it readers of a log that nobody writes may see more than the disk has.
        let _ = self.0.write_at(&[encode(reach), FAILED].concat(), 0);
    }
}

/// Says how far a log is durable that was repaired; `None`: what was said does not count any more.
/// In place, so that whoever has the file open sees it.
pub(crate) fn tell_repaired(files: &dyn Files, reach: Option<Reach>) -> Result<(), StoreError> {
    // It is no writer's number, so that readers see that it is another log.
    let told = [reach.map_or([0; REACH_BYTES], encode), [0; 16]].concat();
    let tell = |file: Arc<dyn File>| {
        file.write_at(&told, 0)?;
        file.sync()
    };
    match files.open(SYNCED).and_then(tell) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        told => told.map_err(|e| error::disk("ending the log before the damage", SYNCED, e)),
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
