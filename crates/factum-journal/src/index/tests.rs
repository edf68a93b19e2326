use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use factum_backend::Commit;
use factum_kernel::{ReadQuery, StoreErrorKind, SystemClock, SystemIds};

use super::*;
use crate::{
    append::{
        Committer,
        tests::{batch, open},
    },
    disk::{File, SystemFiles},
    follower::LogFollower,
    lock::Lock,
    place::{DOCUMENTS, LOG},
    read,
    recovery::{self, Founded},
    seal::merge_step,
    synced::SYNCED,
    tail::TailOptions,
    verify::{Folders, look},
};

const SEGMENT_BYTES: u32 = 4 << 10;

/// A folder that counts its open files, and can list names that once existed.
#[derive(Debug, Clone)]
struct Watched {
    files: SystemFiles,
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    names_once: Arc<Mutex<Option<Vec<String>>>>,
    /// The first content that the file `synced` shows.
    synced_once: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Watched {
    fn new(folder: &Path) -> Self {
        let (open, most, names_once, synced_once) = Default::default();
        Self { files: SystemFiles::open(folder).unwrap(), open, most, names_once, synced_once }
    }

    fn count(&self, name: &str, file: Arc<dyn File>) -> Arc<dyn File> {
        let now = self.open.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(now, Relaxed);
        let once = if name == SYNCED { self.synced_once.clone() } else { Arc::default() };
        Arc::new(WatchedFile { file, open: self.open.clone(), once })
    }
}

#[derive(Debug)]
struct WatchedFile {
    file: Arc<dyn File>,
    open: Arc<AtomicUsize>,
    once: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Drop for WatchedFile {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

impl Files for Watched {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.files.open(name).map(|file| self.count(name, file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.files.create(name).map(|file| self.count(name, file))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.names_once.lock().unwrap().take().map_or_else(|| self.files.list(), Ok)
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

    fn moved_from(&self) -> Option<PathBuf> {
        self.files.moved_from()
    }

    fn has_writer(&self) -> io::Result<bool> {
        self.files.has_writer()
    }
}

impl File for WatchedFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some(bytes) = self.once.lock().unwrap().take() {
            let len = bytes.len().min(into.len());
            into[..len].copy_from_slice(&bytes[..len]);
            return Ok(len);
        }
        self.file.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn names(&self) -> io::Result<u64> {
        self.file.names()
    }
}

/// A journal of this many segments, with one event each, whose runs are not merged.
fn grown(folder: &Path, segments: usize) -> Committer {
    let lock = Lock::take(&SystemFiles::open(folder).unwrap()).unwrap();
    let mut committer = open(folder, Founded::Never, SEGMENT_BYTES);
    committer.lock = Some(lock);
    grow(&mut committer, segments);
    assert_eq!(committer.tail.segment.header.first, segments as u64, "a segment for each event");
    committer
}

fn grow(committer: &mut Committer, segments: usize) {
    for _ in 0..segments {
        committer.commit(&[batch(1, SEGMENT_BYTES as usize - 600)]).unwrap();
    }
}

fn lose_runs(folder: &Path) {
    let log = SystemFiles::open(&folder.join(LOG)).unwrap();
    for name in log.list().unwrap().iter().filter(|name| name.ends_with(".index")) {
        log.remove(name).unwrap();
    }
}

/// Each segment once took an open file, and so did each run that was rebuilt. A log of more than a
/// thousand could not be opened again under the usual limit.
#[test]
fn opening_and_verifying_hold_few_files_however_many_segments_there_are() {
    const SEGMENTS: usize = 200;
    const MOST: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    drop(grown(folder.path(), SEGMENTS));
    let ids = Arc::new(SystemIds);
    let clock = Arc::new(SystemClock);
    let options = TailOptions { ids, clock, segment_bytes: SEGMENT_BYTES };
    let watched = || Watched::new(&folder.path().join(LOG));
    lose_runs(folder.path());
    for _ in 0..2 {
        let files = watched();
        let log = recovery::open(Arc::new(files.clone()), Founded::Before, &options).unwrap().log;
        let most = files.most.load(Relaxed);
        assert!(most <= MOST, "{most} files were open at once");
        let page = read::page(&log, &ReadQuery::log().with_events_max(SEGMENTS)).unwrap();
        assert_eq!(page.events.len(), SEGMENTS);
    }
    let top = Arc::new(SystemFiles::open(folder.path()).unwrap());
    let files = watched();
    let follower = LogFollower::open(top.clone(), Arc::new(files.clone())).unwrap();
    assert_eq!(follower.log.view().head as usize, SEGMENTS);
    let most = files.most.load(Relaxed);
    assert!(most <= MOST, "{most} files were open at once to read beside a writer");

    let log = watched();
    let documents = Watched::new(&folder.path().join(DOCUMENTS));
    let folders = Folders { top, log: Arc::new(log.clone()), documents: Arc::new(documents) };
    let report = look(&folders, true, &mut |_, _| {}).unwrap().report;
    assert_eq!(report.events as usize, SEGMENTS);
    let most = log.most.load(Relaxed);
    assert!(most <= MOST, "{most} files were open at once to verify");
}

/// Fails if a reader's memory holds more segments than a writer leaves without a run.
fn check_follower(folder: &Path, files: Watched, segments: usize) {
    let top = Arc::new(SystemFiles::open(folder).unwrap());
    let follower = LogFollower::open(top, Arc::new(files)).unwrap();
    let tables = follower.log.view().tables;
    let runs = tables.runs.len();
    let recents = tables.recents.len();
    assert!(recents <= RECENTS_MAX + 1, "{recents} segments are in memory, beside {runs} runs");
    let page = read::page(&follower.log, &ReadQuery::log().with_events_max(segments)).unwrap();
    assert_eq!(page.events.len(), segments);
}

/// A run that was listed and then merged away once counted as one that was never made, and the
/// whole log after it came into memory.
#[test]
fn a_reader_that_meets_a_finished_merge_looks_again() {
    const SEGMENTS: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    let committer = grown(folder.path(), SEGMENTS);
    let files = Watched::new(&folder.path().join(LOG));
    *files.names_once.lock().unwrap() = Some(files.list().unwrap());
    while merge_step(&committer.log, &|| false).unwrap() {}
    check_follower(folder.path(), files, SEGMENTS);
}

/// A run that covers segments that the reader did not know yet once counted as one of another log.
#[test]
fn a_reader_that_meets_a_merge_of_what_came_meanwhile_looks_again() {
    const SEGMENTS: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    let mut committer = grown(folder.path(), SEGMENTS / 2);
    let files = Watched::new(&folder.path().join(LOG));
    let synced = files.files.open(SYNCED).unwrap().read_all().unwrap();
    *files.synced_once.lock().unwrap() = Some(synced);
    grow(&mut committer, SEGMENTS / 2);
    while merge_step(&committer.log, &|| false).unwrap() {}
    check_follower(folder.path(), files, SEGMENTS);
}

#[test]
fn a_reader_takes_no_more_of_a_log_without_its_index_into_memory_than_a_writer_leaves() {
    let header = |previous_end| SegmentHeader {
        lineage: Lineage::new(uuid::Uuid::from_u128(7)),
        salt: 1,
        first: 9,
        base_at: Timestamp::EPOCH,
        previous: 1,
        previous_end,
        rewritten: None,
    };
    let check = |count, bytes| check_runless(&vec![header(bytes); count], &header(bytes));
    check(RUNLESS_MAX, 1 << 30).unwrap();
    check(10_000, 16 << 10).unwrap();
    check(0, 0).unwrap();
    let refused = check(RUNLESS_MAX + 1, 64 << 20).unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Unavailable);
    assert!(refused.to_string().contains("open the journal for writing once"), "{refused}");
}
