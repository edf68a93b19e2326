use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use factum_kernel::{Revision, SystemClock, SystemIds, WriteError};

use super::*;
use crate::{
    disk::{File, SystemFiles},
    recovery::{self, Founded},
    tail::TailOptions,
};

const SEGMENT_BYTES: u32 = 256 << 10;

/// Counts the bytes read.
#[derive(Debug)]
struct Counted {
    files: SystemFiles,
    read: Arc<AtomicU64>,
}

#[derive(Debug)]
struct CountedFile {
    file: Arc<dyn File>,
    read: Arc<AtomicU64>,
}

impl Counted {
    fn file(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(CountedFile { file, read: self.read.clone() })
    }
}

impl Files for Counted {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.files.open(name).map(|file| self.file(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.files.create(name).map(|file| self.file(file))
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
        // This test counts reads only, and nothing has to survive.
        Ok(())
    }

    fn moved_from(&self) -> Option<std::path::PathBuf> {
        self.files.moved_from()
    }

    fn has_writer(&self) -> io::Result<bool> {
        self.files.has_writer()
    }
}

impl File for CountedFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(into, offset)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn names(&self) -> io::Result<u64> {
        self.file.names()
    }
}

struct Opened {
    documents: Documents,
    read: Arc<AtomicU64>,
}

impl Opened {
    fn new(folder: &std::path::Path, founded: Founded) -> Self {
        let read = Arc::new(AtomicU64::new(0));
        let files =
            Arc::new(Counted { files: SystemFiles::open(folder).unwrap(), read: read.clone() });
        let options = TailOptions {
            ids: Arc::new(SystemIds),
            clock: Arc::new(SystemClock),
            segment_bytes: SEGMENT_BYTES,
        };
        let (documents, _) = recovery::open_documents(files, founded, &options, 8).unwrap();
        Self { documents, read }
    }

    /// The bytes read since the last call.
    fn read(&self) -> u64 {
        self.read.swap(0, Ordering::Relaxed)
    }

    fn items_in_memory(&self) -> usize {
        let state = self.documents.state();
        state.active.items().len() + state.sealed.iter().map(|it| it.items().len()).sum::<usize>()
    }
}

fn key(n: usize) -> Bytes {
    // Documents that were written one after another are not neighbours in the order of keys.
    format!("document-{:08}", n * 7_919 % 200_000).into()
}

fn put(keys: std::ops::Range<usize>) -> WriteBatch {
    let put = |batch: WriteBatch, n| batch.put(key(n), ExpectedRevision::Any, vec![n as u8; 100]);
    keys.fold(WriteBatch::new(), put)
}

#[test]
fn two_hundred_thousand_documents_open_with_bounded_memory_and_few_reads() {
    const COUNT: usize = 200_000;
    let folder = tempfile::tempdir().unwrap();
    let opened = Opened::new(folder.path(), Founded::Never);
    let mut most = 0;
    for first in (0..COUNT).step_by(1_000) {
        let outcome = opened.documents.commit(&[&put(first..first + 1_000)]).remove(0);
        assert_eq!(outcome.unwrap().value() as usize, first / 1_000 + 1);
        opened.documents.flush_step().unwrap();
        while opened.documents.merge_step(&|| false).unwrap() {}
        most = most.max(opened.items_in_memory());
    }
    let bytes: u64 = opened.documents.runs().iter().map(|run| run.bytes).sum();
    // Not closed, as after a crash.
    drop(opened);

    let opened = Opened::new(folder.path(), Founded::Before);
    let read = opened.read();
    let items = opened.items_in_memory();
    let runs = opened.documents.runs();
    println!("bytes={bytes} runs={} read={read} items={items} most={most}", runs.len());
    assert!(bytes > 20 << 20 && runs.len() <= 7 * 3, "{bytes} bytes in {} runs", runs.len());
    assert!(read < bytes / 20, "{read} of {bytes} bytes were read at opening");
    assert!(items.max(most) <= 3 * SEGMENT_BYTES as usize / 100, "{items} items in memory");

    for n in (0..COUNT).step_by(1_009) {
        let found = opened.documents.get(&key(n)).unwrap().unwrap();
        assert_eq!((found.value[0], found.revision.value()), (n as u8, n as u64 / 1_000 + 1));
    }
    let present = opened.read() / (COUNT as u64 / 1_009 + 1);
    for n in 0..1_000 {
        assert_eq!(opened.documents.get(format!("document-{n}x").as_bytes()).unwrap(), None);
    }
    let absent = opened.read() / 1_000;
    assert!(present < 6 << 10 && absent < 2 << 10, "read for one: {present}, for none: {absent}");

    let query = ScanQuery::new(KeyRange::all()).with_documents_max(100);
    let page = opened.documents.scan(&query).unwrap();
    assert_eq!(page.documents.len(), 100);
    let most = (runs.len() as u64 + 1) * (16 << 10);
    assert!(opened.read() < most, "a page of 100 reads as if it were all");
}

/// There is one frame and one sync. Each write is decided against the writes before it in the
/// group.
#[test]
fn the_writes_of_a_group_are_decided_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let opened = Opened::new(folder.path(), Founded::Never);
    let absent = ExpectedRevision::Absent;
    let exact = ExpectedRevision::Exact;
    let put = |expected, value: &'static str| WriteBatch::new().put("a", expected, value);
    let other = WriteBatch::new().put("b", absent, "b");
    let group = [
        put(absent, "1"),
        put(absent, "2"),
        put(exact(Revision::new(1)), "3"),
        other.clone().put("a", exact(Revision::new(1)), "4"),
        WriteBatch::new().remove("a", exact(Revision::new(2))),
        WriteBatch::new(),
        put(absent, "5").remove("b", absent),
    ];
    let outcomes = opened.documents.commit(&group.iter().collect::<Vec<_>>());
    let found: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| match outcome {
            Ok(revision) => Ok(revision.value()),
            Err(WriteError::Conflict { entry }) => Err(entry),
            Err(error) => panic!("{error:?}"),
        })
        .collect();
    assert_eq!(found, [Ok(1), Err(0), Ok(2), Err(1), Ok(3), Ok(3), Ok(4)]);
    let check = |documents: &Documents| {
        let all = documents.scan(&ScanQuery::new(KeyRange::all())).unwrap().documents;
        let found: Vec<_> = all.iter().map(|it| (&it.key[..], it.revision.value())).collect();
        assert_eq!(found, [(&b"a"[..], 4)]);
        assert_eq!(all[0].value, "5");
    };
    check(&opened.documents);
    drop(opened);
    check(&Opened::new(folder.path(), Founded::Before).documents);
}

/// The queue takes no group that large. If a caller commits one, it must not lose what was
/// acknowledged before.
#[test]
fn a_group_whose_frame_no_reader_takes_is_refused_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let opened = Opened::new(folder.path(), Founded::Never);
    opened.documents.commit(&[&put(0..1)]).remove(0).unwrap();
    let value = Bytes::from(vec![7; 33 << 20]);
    let large = |n| WriteBatch::new().put(key(n), ExpectedRevision::Any, value.clone());
    for outcome in opened.documents.commit(&[&large(1), &large(2)]) {
        assert!(matches!(outcome, Err(WriteError::Store(_))), "nothing is written: {outcome:?}");
    }
    let largest = Bytes::from(vec![7; (48 << 20) - 100]);
    let largest = WriteBatch::new().put(key(3), ExpectedRevision::Any, largest);
    opened.documents.commit(&[&largest]).remove(0).unwrap();
    opened.documents.commit(&[&put(4..5)]).remove(0).unwrap();
    drop(opened);
    let opened = Opened::new(folder.path(), Founded::Before);
    let is_there = |n| opened.documents.get(&key(n)).unwrap().is_some();
    assert_eq!([0, 1, 2, 3, 4].map(is_there), [true, false, false, true, true]);
}

/// After a panic in the middle of a write, no state can be relied on: nothing more is written, and
/// no caller hangs.
#[tokio::test]
async fn after_a_panic_writes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let documents = Arc::new(Opened::new(folder.path(), Founded::Never).documents);
    documents.clone().write(put(0..1)).await.unwrap();
    let held = documents.clone();
    let panics = move || {
        let _writer = held.writer.lock();
        panic!("as a test wants it");
    };
    assert!(std::thread::spawn(panics).join().is_err());
    for _ in 0..2 {
        let refused = documents.clone().write(put(1..2)).await.unwrap_err();
        assert!(matches!(refused, WriteError::Store(_)), "{refused:?}");
    }
    documents.close();
    drop(documents);
    let opened = Opened::new(folder.path(), Founded::Before);
    assert!(opened.documents.get(&key(0)).unwrap().is_some());
    assert!(opened.documents.get(&key(1)).unwrap().is_none());
}
