use std::{io, ops::RangeInclusive};

use factum_backend::Commit;
use factum_kernel::{
    AppendBatch, Content, Direction, EventId, EventName, ExpectedVersion, IdSource, NewEvent,
    ReadQuery, StoreErrorKind, StreamId, SystemIds, Timestamp,
};
use factum_testing::deletion;
use tempfile::TempDir;

use super::*;
use crate::{
    append::{Committer, tests::open},
    log::Taken,
    read,
    reclaim::Reclaimer,
    recovery::Founded,
    seal::seal_step,
};

fn stream(n: u64) -> StreamId {
    StreamId::new("account", &format!("s{n}")).unwrap()
}

/// A log of four streams in small segments, without threads. Every sealed segment has its run.
fn log() -> (TempDir, Committer) {
    let folder = tempfile::tempdir().unwrap();
    let mut committer = open(folder.path(), Founded::Never, 4 << 10);
    for n in 0..120 {
        let id = EventId::new(SystemIds.uuid(Timestamp::EPOCH));
        let name = EventName::from_static(["account.opened", "account.closed"][n as usize % 2]);
        let event = NewEvent::new(id, name, Content::Json, vec![b'x'; n as usize]);
        let batch = AppendBatch::new().write(stream(n % 4), ExpectedVersion::Any, [event]);
        committer.commit(&[batch]).unwrap();
    }
    while seal_step(&committer.log).unwrap() {}
    (folder, committer)
}

fn delete(committer: &mut Committer, range: std::ops::Range<u64>) {
    for n in range {
        let deleted = committer.commit(&[deletion(stream(n))]).unwrap();
        assert!(deleted.outcomes.iter().all(Result::is_ok));
    }
}

/// The positions of the first segment.
fn first_segment(committer: &Committer) -> RangeInclusive<u64> {
    let view = committer.log.view();
    let run = &view.tables.runs[0];
    run.header.first..=run.header.last
}

/// An item of a segment, as a walk passes it.
#[derive(Debug, PartialEq)]
struct Shown {
    position: u64,
    offset: u32,
    bytes: Vec<u8>,
}

/// All items that a walk passes, or its error.
fn shown(segment: &Segment, next: &SegmentHeader) -> Result<Vec<Shown>, StoreError> {
    let mut found = Vec::new();
    walk(segment, End::Sealed(next), |frame, _| {
        let shown = frame.items().map(|it| Shown {
            position: it.position,
            offset: it.offset,
            bytes: it.bytes.to_vec(),
        });
        found.extend(shown);
        Ok(())
    })?;
    Ok(found)
}

#[test]
fn every_flipped_bit_of_a_rewritten_segment_is_noticed() {
    let (folder, mut committer) = log();
    delete(&mut committer, 1..4);
    let (first, last) = first_segment(&committer).into_inner();
    let files = &*committer.log.files;
    let next = Segment::open(files, last + 1).unwrap().header;
    let before = shown(&Segment::open(files, first).unwrap(), &next).unwrap();
    let erased = &committer.log.view().erased;
    let held = rewrite(files, first..=last, erased, &|| false).unwrap().unwrap();
    assert_eq!(u64::from(held), last + 1 - first - erased.count(first, last));
    let after = shown(&Segment::open(files, first).unwrap(), &next).unwrap();
    // Three records about left-out versions come first. The kept records are unchanged.
    assert!(after.len() > 3 && after[3..].iter().all(|item| before.contains(item)));

    let path = folder.path().join("log").join(segment_name(first));
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() < 4_096 / 2, "{} bytes", bytes.len());
    for at in (0..80).chain(FRAMES_START as usize..bytes.len()) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, bytes).unwrap();
        let read = Segment::open(files, first).and_then(|segment| shown(&segment, &next));
        assert_eq!(read.unwrap_err().kind(), StoreErrorKind::Corrupt, "byte {at}");
    }
    for len in (0..bytes.len()).step_by(7) {
        std::fs::write(&path, &bytes[..len]).unwrap();
        let read = Segment::open(files, first).and_then(|segment| shown(&segment, &next));
        assert_eq!(read.unwrap_err().kind(), StoreErrorKind::Corrupt, "cut at {len}");
    }
}

#[test]
fn a_reader_that_began_before_looks_again() {
    let (_folder, mut committer) = log();
    let log = committer.log.clone();
    let view = log.view();
    delete(&mut committer, 0..4);
    assert!(Reclaimer::default().reclaim(&log, 0, &|| false).unwrap() > 3);
    let read = log.read_events(&view, &[1, 2, 3], Direction::Forward, |_, _| Ok(Taken::More));
    let error = read.unwrap_err();
    assert!(error::is_left_out(&error), "{error:?}");
    assert!(error::is_left_out(&log.recorded_at(&view, 1).unwrap_err()));
    let page = read::page(&log, &ReadQuery::log()).unwrap();
    // The four deletions are left.
    assert_eq!((page.events.len(), page.erased.len()), (4, 1));
    // Nothing of the first segment was kept, and there is nothing before it.
    assert_eq!(log.recorded_at(&log.view(), 1).unwrap(), Timestamp::EPOCH);
}

#[test]
fn a_segment_that_can_not_be_rewritten_stays_as_it_is() {
    let (folder, mut committer) = log();
    delete(&mut committer, 1..4);
    let range = first_segment(&committer);
    let path = folder.path().join("log").join(segment_name(*range.start()));
    let before = std::fs::read(&path).unwrap();
    let erased = committer.log.view().erased;
    assert_eq!(rewrite(&*committer.log.files, range.clone(), &erased, &|| true).unwrap(), None);
    // One bit is written wrong: in the records, the records about left-out versions, the table or
    // the header.
    for at in [20, 40, 70, 600, 700, 900, 1_000] {
        let files = Flipping { files: committer.log.files.clone(), at };
        let error = rewrite(&files, range.clone(), &erased, &|| false).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "byte {at}: {error:?}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let names = committer.log.files.list().unwrap();
    assert!(!names.contains(&format!("{}{UNFINISHED}", segment_name(*range.start()))), "{names:?}");
}

/// A disk that writes one bit wrong.
#[derive(Debug)]
struct Flipping {
    files: Arc<dyn Files>,
    at: u64,
}

#[derive(Debug)]
struct FlippingFile(Arc<dyn File>, u64);

impl Files for Flipping {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.files.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(FlippingFile(self.files.create(name)?, self.at)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.files.sync_names()
    }

    fn moved_from(&self) -> Option<std::path::PathBuf> {
        self.files.moved_from()
    }

    fn has_writer(&self) -> io::Result<bool> {
        self.files.has_writer()
    }
}

impl File for FlippingFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = bytes.to_vec();
        let index = self.1.checked_sub(offset).map(|index| index as usize);
        if let Some(byte) = index.and_then(|index| bytes.get_mut(index)) {
            *byte ^= 4;
        }
        self.0.write_at(&bytes, offset)
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
