use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::*;
use crate::disk::SystemFiles;

/// A folder on a disk that has room for this many bytes.
#[derive(Debug)]
struct Small(SystemFiles, Arc<AtomicU64>);

#[derive(Debug)]
struct SmallFile(Arc<dyn File>, Arc<AtomicU64>);

impl Files for Small {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.0.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(SmallFile(self.0.create(name)?, self.1.clone())))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.0.sync_names()
    }

    fn moved_from(&self) -> Option<std::path::PathBuf> {
        self.0.moved_from()
    }

    fn has_writer(&self) -> io::Result<bool> {
        self.0.has_writer()
    }
}

impl File for SmallFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let len = bytes.len() as u64;
        let taken = self.1.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(len));
        taken.map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?;
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn names(&self) -> io::Result<u64> {
        self.0.names()
    }
}

fn small(folder: &tempfile::TempDir) -> (Small, Arc<AtomicU64>) {
    let room = Arc::new(AtomicU64::new(0));
    (Small(SystemFiles::open(folder.path()).unwrap(), room.clone()), room)
}

fn header() -> SegmentHeader {
    SegmentHeader {
        lineage: Lineage::new(uuid::Uuid::from_u128(7)),
        salt: 1,
        first: 1,
        base_at: Timestamp::EPOCH,
        previous: 0,
        previous_end: 0,
        rewritten: None,
    }
}

/// Otherwise, each attempt would take the space that is left, and none would ever succeed.
#[test]
fn zeros_that_the_disk_has_no_room_for_take_none() {
    let folder = tempfile::tempdir().unwrap();
    let (files, room) = small(&folder);
    let spare = Spare::default();
    for _ in 0..3 {
        room.store(600 << 10, Relaxed);
        spare.prepare(&files, 1 << 20).unwrap();
        let without = spare.take(&files, 1 << 20).unwrap();
        assert_eq!((without.file.len().unwrap(), without.bytes), (0, 1 << 20));
        files.remove(&without.name).unwrap();
    }
    // There is space for the zeros, but the header is refused.
    room.store(1 << 20, Relaxed);
    let zeroed = spare.take(&files, 1 << 20).unwrap();
    assert!(matches!(zeroed.place(&files, header()), Err(TailError::NotWritten(_))));
    assert_eq!(files.list().unwrap(), [""; 0]);
    room.store(2 << 20, Relaxed);
    spare.take(&files, 1 << 20).unwrap().place(&files, header()).unwrap();
    assert_eq!(files.list().unwrap(), [segment_name(1)]);
}

/// A disk with a megabyte left once counted as full for a log whose next segment was planned with a
/// megabyte.
#[test]
fn a_log_goes_on_without_zeros_until_the_disk_is_full_of_frames() {
    let folder = tempfile::tempdir().unwrap();
    let (files, room) = small(&folder);
    let ids = Arc::new(factum_kernel::SystemIds);
    let clock = Arc::new(factum_kernel::SystemClock);
    let options = TailOptions { ids, clock, segment_bytes: 8 << 20 };
    room.store(1 << 20, Relaxed);
    let first = begin_segment(&files, header(), options.segment_bytes).unwrap();
    let files: Arc<dyn Files> = Arc::new(files);
    let mut tail = LogTail::new(files.clone(), first, FRAMES_START, options).unwrap();
    tail.roll(2, Timestamp::EPOCH).unwrap();
    room.store(100 << 10, Relaxed);
    let mut bytes = bytes::BytesMut::new();
    let mut frames = 0;
    let refused = loop {
        frame::begin(&mut bytes);
        bytes.resize(8 << 10, 7);
        frame::finish(&mut bytes, tail.place(), 2, FrameKind::Group).unwrap();
        match tail.write(&bytes) {
            Ok(()) => frames += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, TailError::NotWritten(_)), "it is known that nothing was stored");
    assert!(frames >= 10, "{frames} frames had room");
    tail.check().unwrap();
    assert!(!tail.is_full(8 << 10, 3), "it is not the end of the segment either");
    room.store(1 << 20, Relaxed);
    tail.write(&bytes).unwrap();
}
