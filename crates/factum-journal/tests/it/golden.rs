//! Journals as they were once written, when a deletion was a change without an event. Later
//! versions must open them: one with segments of version 1 only, and one whose sealed segments were
//! rewritten to version 2.

use std::{fs, path::Path, time::Duration};

use factum_journal::{JournalOptions, JournalStore, verify};
use factum_kernel::{
    AppendBatch, AppendError, Content, DocumentStore, EventId, EventName, EventStore,
    ExpectedRevision, ExpectedVersion, Metadata, NewEvent, ReadQuery, StreamChange, StreamVersion,
    Tag, Timestamp, WriteBatch,
};
use factum_testing::deletion;

use crate::{
    fresh::{check_log, files, pages, stream},
    space::{rewritten, until},
};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/golden/format-1");
const REWRITTEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/golden/format-2");
/// Tells `make` where to write a golden journal: `cargo test -p factum-journal golden::make`.
const MAKE: &str = "FACTUM_JOURNAL_MAKE_GOLDEN";
const EVENTS: u64 = 60;

fn payload(n: u64) -> String {
    format!("{{\"cents\":{n},\"text\":\"{}\"}}", "ö".repeat(n as usize))
}

fn event(n: u64) -> NewEvent {
    let names = ["account.opened", "account.money-deposited"];
    let time = Timestamp::from_micros(1_767_225_600_000_000 + n);
    let id = EventId::derived(time, &n.to_le_bytes());
    let name = EventName::from_static(names[(n % 2) as usize]);
    NewEvent::new(id, name, Content::Json, payload(n))
        .with_tag(Tag::new("parity", n % 2).unwrap())
        .with_metadata(Metadata::new().with_user("ada").with("n", &n.to_string()))
}

/// Not a test of its own; it made the golden journal.
#[tokio::test]
async fn make() {
    let Ok(path) = std::env::var(MAKE) else { return };
    let options = JournalOptions::new(&path).with_segment_bytes(4 << 10);
    let store = JournalStore::open(options).await.unwrap();
    for n in 1..=EVENTS {
        let stream = stream(&format!("s{}", n % 3));
        let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [event(n)]);
        store.append(batch).await.unwrap();
    }
    let truncate = StreamChange::TruncateBefore(StreamVersion::new(5));
    store.change(&stream("s1"), truncate).await.unwrap();
    store.append(deletion(stream("s2"))).await.unwrap();
    let put = |key: &'static str, value: &'static str| {
        WriteBatch::new().put(key, ExpectedRevision::Any, value)
    };
    store.write(put("a", "1").put("b", ExpectedRevision::Any, "2")).await.unwrap();
    store.write(put("a", "3").remove("b", ExpectedRevision::Any)).await.unwrap();
    store.close().await.unwrap();
}

/// Made the rewritten journal from the other: `cargo test -p factum-journal golden::rewrite`.
#[tokio::test]
async fn rewrite() {
    let Ok(path) = std::env::var(MAKE) else { return };
    let path = Path::new(&path);
    copy(Path::new(GOLDEN), path);
    let options = JournalOptions::new(path).with_segment_bytes(4 << 10);
    let store = JournalStore::open(options).await.unwrap();
    store.append(deletion(stream("s1"))).await.unwrap();
    until("every sealed segment is rewritten", || rewritten(path) == 4).await;
    store.close().await.unwrap();
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn the_golden_journal_opens_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    copy(Path::new(GOLDEN), folder.path());
    let report = verify(folder.path()).unwrap();
    assert!(report.is_whole() && report.segments > 3 && report.runs > 0, "{report:?}");
    let store = JournalStore::open(JournalOptions::new(folder.path())).await.unwrap();
    assert_eq!(check_log(&store).await.value(), EVENTS);
    let mut seen = 0;
    for page in pages(&store, ReadQuery::log()).await {
        for found in page.events {
            let wanted = event(found.position().value());
            assert_eq!((found.id(), found.name()), (wanted.id, wanted.name.as_str()));
            assert_eq!(found.payload_bytes(), wanted.payload);
            assert_eq!(found.metadata(), wanted.metadata);
            seen += 1;
        }
    }
    // Twenty events of the deleted stream and four of the truncated one are gone.
    assert_eq!(seen, EVENTS - 24);
    let info = store.stream_info(&stream("s2")).await.unwrap();
    assert!(info.bounds.is_deleted() && info.bounds.version == StreamVersion::new(21));
    let document = store.get(b"a").await.unwrap().unwrap();
    assert_eq!((document.revision.value(), &document.value[..]), (2, &b"3"[..]));
    assert_eq!(store.get(b"b").await.unwrap(), None);

    // The deletion has no event. It can't be repeated, and another one comes beside it.
    let refused = store.append(deletion(stream("s2"))).await;
    let Err(AppendError::Conflict(conflict)) = refused else { panic!("{refused:?}") };
    assert_eq!(conflict.deleted_at, Some(StreamVersion::new(21)));
    let batch = AppendBatch::new().write(stream("s2"), StreamVersion::new(21), [event(61)]);
    assert_eq!(store.append(batch).await.unwrap().first.value(), EVENTS + 1);
    let deleted = store.append(deletion(stream("s2"))).await.unwrap();
    assert_eq!((deleted.first.value(), deleted.versions[0].value()), (EVENTS + 2, 23));
    let closed = tokio::time::timeout(Duration::from_secs(60), store.close()).await;
    closed.unwrap().unwrap();
    assert!(verify(folder.path()).unwrap().is_whole());
}

#[tokio::test]
async fn the_golden_journal_that_was_rewritten_opens_with_and_without_its_index() {
    let folder = tempfile::tempdir().unwrap();
    copy(Path::new(REWRITTEN), folder.path());
    for is_lost in [false, true] {
        assert_eq!(rewritten(folder.path()), 4);
        let report = verify(folder.path()).unwrap();
        assert!(report.is_whole(), "{report:?}");
        assert_eq!((report.events, report.erased), (EVENTS, 40));
        if is_lost {
            files(folder.path(), ".index").iter().for_each(|run| fs::remove_file(run).unwrap());
        }
        let store = JournalStore::open(JournalOptions::new(folder.path())).await.unwrap();
        assert_eq!(check_log(&store).await.value(), EVENTS);
        let mut seen = Vec::new();
        for found in pages(&store, ReadQuery::log()).await.into_iter().flat_map(|it| it.events) {
            let wanted = event(found.position().value());
            assert_eq!((found.id(), found.name()), (wanted.id, wanted.name.as_str()));
            assert_eq!(found.payload_bytes(), wanted.payload);
            seen.push(found.position().value());
        }
        assert_eq!(seen, (1..=EVENTS).filter(|n| n % 3 == 0).collect::<Vec<_>>());
        for (name, version) in [("s0", 20), ("s1", 21), ("s2", 21)] {
            let bounds = store.stream_info(&stream(name)).await.unwrap().bounds;
            assert_eq!(bounds.version, StreamVersion::new(version));
            assert_eq!(bounds.is_deleted(), name != "s0");
        }
        store.close().await.unwrap();
    }
}
