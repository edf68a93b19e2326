//! Damage by hand to rewritten segments and to documents in runs. Each is reported with its place,
//! and a repair leaves a journal that opens.

use std::{
    fs,
    path::{Path, PathBuf},
};

use factum_journal::{Damage, JournalOptions, JournalStore, Loss, Part, repair, verify};
use factum_kernel::{DocumentStore, EventStore, ExpectedRevision, KeyRange, ScanQuery, WriteBatch};
use factum_testing::deletion;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::{
    fresh::{SEGMENT_BYTES, check_log, files, files_in, grow, stream},
    golden::copy,
    space::{rewritten, until},
    verifying::{first, flip, name, varint},
};

const EVENTS: u64 = 1_200;
const DELETED: u64 = 6;
const BEGIN: &str = "documents/00000000000000000000.log";

async fn open(path: &Path) -> JournalStore {
    let options = JournalOptions::new(path).with_segment_bytes(SEGMENT_BYTES);
    JournalStore::open(options.with_document_segment_bytes(4 << 10)).await.unwrap()
}

/// A copy of a journal that is made once.
async fn journal() -> TempDir {
    static MADE: OnceCell<TempDir> = OnceCell::const_new();
    let folder = tempfile::tempdir().unwrap();
    copy(MADE.get_or_init(make).await.path(), folder.path());
    folder
}

async fn make() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let store = open(path).await;
    grow(&store, EVENTS as usize).await;
    for n in 0..DELETED {
        store.append(deletion(stream(&format!("s{n}")))).await.unwrap();
    }
    let segments = files(path, ".log").len();
    until("segments are rewritten", || rewritten(path) + 3 >= segments).await;
    for n in 0..300 {
        let batch = WriteBatch::new().put(format!("k{n:03}"), ExpectedRevision::Any, "value");
        store.write(batch).await.unwrap();
    }
    until("there are runs", || document_runs(path).len() > 2).await;
    store.close().await.unwrap();
    folder
}

fn document_runs(path: &Path) -> Vec<PathBuf> {
    files_in(path, "documents", ".documents")
}

fn is_rewritten(segment: &Path) -> bool {
    fs::read(segment).unwrap()[8] == 2
}

/// The offsets in a rewritten segment of the records about left-out versions and of the table.
fn parts(bytes: &[u8]) -> (usize, usize) {
    let table = u32::from_le_bytes(bytes[68..72].try_into().unwrap()) as usize;
    let mut rest = &bytes[table..];
    let _end = varint(&mut rest);
    let _positions = varint(&mut rest);
    let notes = varint(&mut rest);
    (table - notes as usize, table)
}

#[track_caller]
fn only_damage(path: &Path) -> Damage {
    let report = verify(path).unwrap();
    assert_eq!(report.damage_count, 1, "{report:#?}");
    report.damages.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_whole_one_is_whole_and_everything_is_counted() {
    let folder = journal().await;
    let report = verify(folder.path()).unwrap();
    assert!(report.is_whole() && report.torn.is_empty(), "{report:#?}");
    let erased = EVENTS * DELETED / 10;
    let found = (report.events, report.erased, report.streams);
    assert_eq!(found, (EVENTS + DELETED, erased, 10));
    let runs = document_runs(folder.path()).len() as u64;
    assert_eq!((report.documents, report.document_runs), (300, runs));
}

/// The change to a rewritten segment, and the text of its report.
type Harm = fn(&mut Vec<u8>);

const HARMS: [(&str, Harm, &str); 8] = [
    ("a bit of the header", |bytes| bytes[41] ^= 1, "a segment can't be read"),
    ("a bit of what was kept", |bytes| bytes[600] ^= 1, "a kept extent"),
    ("a bit of the notes", |bytes| flip_at(bytes, |it| parts(it).0 + 8), "about left-out versions"),
    ("a bit of the table", |bytes| flip_at(bytes, |it| parts(it).1 + 9), "the table"),
    ("a bit of the last checksum", |bytes| flip_at(bytes, |it| it.len() - 1), "the table"),
    ("cut short", |bytes| bytes.truncate(bytes.len() / 2), "the table"),
    ("longer", |bytes| bytes.push(0), "the table"),
    ("another number of events", |bytes| other_events(bytes), "the table"),
];

fn flip_at(bytes: &mut [u8], place: fn(&[u8]) -> usize) {
    let at = place(bytes);
    bytes[at] ^= 1;
}

/// Keeps the header's checksum valid.
fn other_events(bytes: &mut [u8]) {
    bytes[76] ^= 1;
    let crc = crc32c::crc32c(&bytes[16..80]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
}

#[tokio::test]
async fn damage_of_a_rewritten_segment_is_said_and_the_log_ends_before_it() {
    for (index, (what, harm, said)) in [0, 5].into_iter().cycle().zip(HARMS) {
        let folder = journal().await;
        let segments = files(folder.path(), ".log");
        assert!(is_rewritten(&segments[index]));
        let mut bytes = fs::read(&segments[index]).unwrap();
        harm(&mut bytes);
        fs::write(&segments[index], bytes).unwrap();
        let damage = only_damage(folder.path());
        let file = format!("log/{}", name(&segments[index]));
        assert_eq!((damage.part, &damage.file), (Part::Log, &file), "{what}: {damage}");
        assert!(damage.what.contains(said) && damage.offset.is_some(), "{what}: {damage}");
        let positions = first(&segments[index])..first(&segments[index + 1]);
        assert!(positions.contains(&damage.from.unwrap()), "{what}: {damage}");
        assert!(positions.contains(&damage.through.unwrap()), "{what}: {damage}");
        ends_with(&folder, first(&segments[index]) - 1).await;
    }
}

/// Repairs it; this many positions remain, and the log goes on.
async fn ends_with(folder: &TempDir, events: u64) {
    let path = folder.path();
    let refused = repair(path, Loss::Refused, &mut |_, _| {}).unwrap();
    assert!(!refused.is_done && refused.events.unwrap().from == events + 1, "{refused:#?}");
    let done = repair(path, Loss::Accepted, &mut |_, _| {}).unwrap();
    assert!(done.left.is_whole() && done.documents.is_none(), "{done:#?}");
    assert_eq!((done.left.events, done.left.documents), (events, 300));
    for is_lost in [false, true] {
        if is_lost {
            files(path, ".index").iter().for_each(|run| fs::remove_file(run).unwrap());
        }
        let store = open(path).await;
        let positions = check_log(&store).await.value();
        assert_eq!(positions, events + if is_lost { 300 } else { 0 });
        // Events whose space was reclaimed stay erased; if no position remains, nothing is known of
        // them.
        let bounds = store.stream_info(&stream("s3")).await.unwrap().bounds;
        assert!(events == 0 || is_lost || bounds.erased_through == bounds.version, "{bounds:?}");
        grow(&store, 300).await;
        store.close().await.unwrap();
        drop(store);
        let report = verify(path).unwrap();
        assert!(report.is_whole(), "{report:#?}");
    }
}

#[tokio::test]
async fn what_is_missing_behind_a_rewritten_segment_ends_the_log_there() {
    let folder = journal().await;
    let segments = files(folder.path(), ".log");
    let last = segments.iter().rposition(|it| is_rewritten(it)).unwrap();
    // A rewritten segment in the middle; the segment after the last of them; and all of those.
    for gone in [4..5, last + 1..last + 2, last + 1..segments.len()] {
        let folder = journal().await;
        let segments = files(folder.path(), ".log");
        segments[gone.clone()].iter().for_each(|segment| fs::remove_file(segment).unwrap());
        let damage = only_damage(folder.path());
        assert!(damage.what.contains("a segment is missing"), "{damage}");
        assert_eq!(damage.from, Some(first(&segments[gone.start])), "{damage}");
        ends_with(&folder, first(&segments[gone.start]) - 1).await;
    }
}

/// The change to a run of documents, and the text of its report.
const RUN_HARMS: [(&str, Harm, &str); 6] = [
    ("a bit of a block", |bytes| bytes[100] ^= 1, "not what was written"),
    ("a bit of a checksum", |bytes| flip_at(bytes, |it| list(it) - 1), "not what was written"),
    ("a bit of the list", |bytes| flip_at(bytes, |it| list(it) + 2), "not what was written"),
    ("a bit of the filter", |bytes| flip_at(bytes, |it| it.len() - 101), "not what was written"),
    ("a bit of the footer", |bytes| flip_at(bytes, |it| it.len() - 50), "not what was written"),
    ("cut short", |bytes| bytes.truncate(bytes.len() / 2), "not what was written"),
];

/// The offset of the list of blocks.
fn list(bytes: &[u8]) -> usize {
    let at = bytes.len() - 32;
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

fn range(run: &Path) -> (u64, u64) {
    (name(run)[..20].parse().unwrap(), name(run)[21..41].parse().unwrap())
}

#[tokio::test]
async fn damage_of_a_run_of_documents_is_said_and_they_end_before_it() {
    for (what, harm, said) in RUN_HARMS {
        for index in [0, 1] {
            let folder = journal().await;
            let run = document_runs(folder.path()).remove(index);
            let mut bytes = fs::read(&run).unwrap();
            harm(&mut bytes);
            fs::write(&run, bytes).unwrap();
            let damage = only_damage(folder.path());
            let file = format!("documents/{}", name(&run));
            assert_eq!((damage.part, &damage.file), (Part::Documents, &file), "{what}: {damage}");
            assert!(damage.what.contains(said) && damage.offset.is_some(), "{what}: {damage}");
            let positions = (damage.from.unwrap(), damage.through.unwrap());
            assert_eq!(positions, range(&run), "{what}: {damage}");
            documents_end(&folder, range(&run).0).await;
        }
    }
}

/// Repairs it; the writes with this revision and later ones are gone, and writing goes on.
async fn documents_end(folder: &TempDir, from: u64) {
    let path = folder.path();
    let refused = repair(path, Loss::Refused, &mut |_, _| {}).unwrap();
    assert!(!refused.is_done, "{refused:#?}");
    let done = repair(path, Loss::Accepted, &mut |_, _| {}).unwrap();
    let lost = done.documents.unwrap();
    // If the end of their log is missing, the last lost revision can't be known.
    assert!(lost.from == from && lost.through.is_none_or(|it| it == 300), "{done:#?}");
    assert!(done.left.is_whole() && done.events.is_none() && done.lineage.is_none(), "{done:#?}");
    assert_eq!(done.left.documents, from - 1);
    let store = open(path).await;
    assert_eq!(check_log(&store).await.value(), EVENTS + DELETED);
    let query = ScanQuery::new(KeyRange::all());
    let page = store.scan(query.with_documents_max(1_000)).await.unwrap();
    let revisions: Vec<_> = page.documents.iter().map(|it| it.revision.value()).collect();
    assert_eq!(revisions, (1..from).collect::<Vec<_>>());
    for n in 0..100 {
        let batch = WriteBatch::new().put(format!("new{n}"), ExpectedRevision::Any, "value");
        assert_eq!(store.write(batch).await.unwrap().value(), from + n);
    }
    store.close().await.unwrap();
    drop(store);
    let report = verify(path).unwrap();
    assert!(report.is_whole() && report.documents == from + 99, "{report:#?}");
}

#[tokio::test]
async fn files_of_documents_that_are_missing_or_misplaced_are_said() {
    let cases: [fn(&Path) -> u64; 5] = [
        |path| {
            let run = document_runs(path).remove(1);
            fs::remove_file(&run).unwrap();
            range(&run).0
        },
        |path| {
            let run = document_runs(path).remove(0);
            fs::remove_file(&run).unwrap();
            range(&run).0
        },
        // The first run under the name of the second.
        |path| {
            let runs = document_runs(path);
            fs::copy(&runs[0], &runs[1]).unwrap();
            range(&runs[1]).0
        },
        |path| {
            let segments = log_of_documents(path);
            segments.iter().for_each(|segment| fs::remove_file(segment).unwrap());
            first(&segments[0])
        },
        |path| {
            let segments = log_of_documents(path);
            flip(&segments[0], 41);
            first(&segments[0])
        },
    ];
    for (index, harm) in cases.into_iter().enumerate() {
        let folder = journal().await;
        let from = harm(folder.path());
        let report = verify(folder.path()).unwrap();
        let is_said = |it: &Damage| it.part == Part::Documents && it.from == Some(from);
        assert!(report.damages.iter().any(is_said), "{index}: {report:#?}");
        documents_end(&folder, from).await;
    }
}

/// The files of the documents that are in no run yet. An older file may be there that is about to
/// be removed.
fn log_of_documents(path: &Path) -> Vec<PathBuf> {
    let (_, end) = range(document_runs(path).last().unwrap());
    files_in(path, "documents", ".log").into_iter().filter(|it| first(it) > end).collect()
}

#[tokio::test]
async fn what_says_where_documents_begin_is_made_anew() {
    let harms: [fn(&Path); 2] = [|begin| flip(begin, 44), |begin| fs::remove_file(begin).unwrap()];
    for harm in harms {
        let folder = journal().await;
        harm(&folder.path().join(BEGIN));
        assert_eq!(only_damage(folder.path()).file, BEGIN);
        let done = repair(folder.path(), Loss::Refused, &mut |_, _| {}).unwrap();
        assert!(done.is_done && done.left.is_whole(), "{done:#?}");
        assert!(done.left.documents == 300 && done.documents.is_none(), "{done:#?}");
    }
}
