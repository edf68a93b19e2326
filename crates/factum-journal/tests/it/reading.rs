//! Reading beside a writer.

use std::{
    fs::{self, File},
    os::unix::{fs::FileExt, process::CommandExt},
    path::Path,
    process::Command,
};

use factum_journal::{Access, JournalOptions, JournalStore, verify};
use factum_kernel::{
    AppendBatch, DocumentStore, EventName, EventStore, ExpectedRevision, ExpectedVersion,
    ReadQuery, StoreErrorKind, WriteBatch,
};
use factum_testing::deletion;

use crate::fresh::{append_one, check_log, event, files, grow, open, pages, stream};

pub(crate) async fn follow(path: &Path) -> JournalStore {
    let options = JournalOptions::new(path).with_access(Access::ReadOnly);
    JournalStore::open(options).await.unwrap()
}

#[tokio::test]
async fn a_reader_beside_the_writer_sees_every_acknowledged_event() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(folder.path()).await;
    grow(&writer, 5).await;
    let reader = follow(folder.path()).await;
    assert_eq!(check_log(&reader).await.value(), 5);
    // Through many segments, runs and merges.
    for round in 1..=30 {
        grow(&writer, 100).await;
        assert_eq!(check_log(&reader).await.value(), 5 + round * 100);
        let of_stream = pages(&reader, ReadQuery::stream(stream("s3"))).await;
        let count: usize = of_stream.iter().map(|page| page.events.len()).sum();
        assert_eq!(count as u64, round * 10 + 1);
        assert_eq!(reader.head().borrow().value(), 5 + round * 100);
    }
    writer.append(deletion(stream("s3"))).await.unwrap();
    let page = reader.read(ReadQuery::stream(stream("s3"))).await.unwrap();
    assert!(page.events.len() == 1 && page.bounds.unwrap().is_deleted());
    assert!(page.events[0].is_deletion());
    assert_eq!(check_log(&reader).await.value(), 3_006);
    writer.close().await.unwrap();
    assert_eq!(check_log(&reader).await.value(), 3_006);
}

async fn put(store: &JournalStore, value: &str) {
    let batch = WriteBatch::new().put("a", ExpectedRevision::Any, value.to_owned());
    store.write(batch).await.unwrap();
}

/// Fails unless a reader sees this many events, and this value.
async fn sees(reader: &JournalStore, events: u64, value: &str) {
    assert_eq!(check_log(reader).await.value(), events);
    assert_eq!(reader.get(b"a").await.unwrap().unwrap().value, value);
}

const HINTS: [&str; 2] = ["log/synced", "documents/synced"];

/// Replaces both hints with these bytes; `None` removes them.
fn leave(path: &Path, left: Option<[&[u8]; 2]>) {
    for (n, hint) in HINTS.iter().enumerate() {
        match left {
            Some(bytes) => fs::write(path.join(hint), bytes[n]).unwrap(),
            None => fs::remove_file(path.join(hint)).unwrap(),
        }
    }
}

/// The hint is never synced: a power cut leaves an old one, an empty one, or none.
#[tokio::test]
async fn without_a_writer_a_reader_reads_all_whatever_is_left_of_the_hint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut lefts = vec![[Vec::new(), Vec::new()]];
    // The hint ends in an earlier segment, and then in the last one.
    for (events, value) in [(20, "1"), (520, "2"), (521, "3")] {
        let writer = open(path).await;
        grow(&writer, events - check_log(&writer).await.value() as usize).await;
        put(&writer, value).await;
        lefts.push(HINTS.map(|hint| fs::read(path.join(hint)).unwrap()));
        writer.close().await.unwrap();
        for left in &lefts {
            leave(path, Some([&left[0], &left[1]]));
            sees(&follow(path).await, events as u64, value).await;
        }
        leave(path, None);
        let reader = follow(path).await;
        sees(&reader, events as u64, value).await;
        // And goes on with a writer that comes later.
        let writer = open(path).await;
        put(&writer, "later").await;
        sees(&reader, events as u64, "later").await;
        writer.close().await.unwrap();
    }
    let writer = open(path).await;
    let reader = follow(path).await;
    append_one(&writer).await.unwrap();
    sees(&reader, 522, "later").await;
    writer.close().await.unwrap();
}

/// Acknowledged events are missing, and a shorter log must not pass as the whole log.
#[tokio::test]
async fn a_log_that_ends_before_its_hint_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let writer = open(path).await;
    grow(&writer, 20).await;
    writer.close().await.unwrap();
    let segment = files(path, ".log").pop().unwrap();
    let before = fs::read(&segment).unwrap();
    let writer = open(path).await;
    append_one(&writer).await.unwrap();
    writer.close().await.unwrap();
    fs::write(&segment, before).unwrap();
    let options = JournalOptions::new(path).with_access(Access::ReadOnly);
    let error = JournalStore::open(options).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(error.to_string().contains("ends before the durable end"), "{error}");
}

#[tokio::test]
async fn beside_a_writer_that_has_said_nothing_yet_a_reader_is_told_to_wait() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let writer = open(path).await;
    grow(&writer, 20).await;
    writer.close().await.unwrap();
    let options = || JournalOptions::new(path).with_access(Access::ReadOnly);
    // Locked like a writer's, or like an older version's.
    for held in ["log", "lock"] {
        let held = File::open(path.join(held)).unwrap();
        held.lock().unwrap();
        leave(path, Some([b"", b""]));
        let error = JournalStore::open(options()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert!(error.to_string().contains("just being opened"), "{error}");
        held.unlock().unwrap();
        assert_eq!(check_log(&follow(path).await).await.value(), 20);
    }
}

/// Otherwise it would show the old content forever.
#[tokio::test]
async fn a_reader_of_a_folder_that_was_replaced_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let away = folder.path().join("away");
    let writer = open(&path).await;
    grow(&writer, 20).await;
    put(&writer, "1").await;
    writer.close().await.unwrap();
    let reader = follow(&path).await;
    sees(&reader, 20, "1").await;
    fs::rename(&path, &away).unwrap();
    open(&path).await.close().await.unwrap();
    let error = reader.read(ReadQuery::log()).await.unwrap_err();
    assert!(error.to_string().contains("was moved, removed or replaced"), "{error}");
    assert!(reader.get(b"a").await.is_err());
}

/// Tells the test `stranger` that it is the process of another user; holds the folder.
const STRANGER: &str = "FACTUM_JOURNAL_TEST_STRANGER";
const NOBODY: u32 = 65_534;

/// Not a test of its own: a user who may read and nothing else.
#[test]
fn stranger() {
    let Ok(path) = std::env::var(STRANGER) else { return };
    let path = Path::new(&path);
    assert!(fs::write(path.join("log/any"), "").is_err(), "it may write");
    let report = verify(path).unwrap();
    assert!(report.is_whole(), "{report:#?}");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let reader = follow(path).await;
        let head = check_log(&reader).await.value();
        println!("\nhead={head} is_beside_writer={}", report.is_beside_writer);
    });
}

#[tokio::test]
async fn a_user_who_may_only_read_sees_whether_there_is_a_writer() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let writer = open(&path).await;
    grow(&writer, 20).await;
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let parts = |bits| ["", "log", "documents"].iter().for_each(|it| mode(&path.join(it), bits));
    // A copy of the program where that user finds it.
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    mode(folder.path(), 0o755);
    let as_stranger = || {
        let mut command = Command::new(&program);
        command.args(["--exact", "reading::stranger", "--nocapture"]).env(STRANGER, &path);
        // Root ignores permissions; for other users they are removed.
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(NOBODY);
        } else {
            parts(0o555);
        }
        let output = command.output().unwrap();
        parts(0o755);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let told = as_stranger();
    assert!(told.contains("head=20 is_beside_writer=true"), "{told}");
    writer.close().await.unwrap();
    leave(&path, Some([b"", b""]));
    let told = as_stranger();
    assert!(told.contains("head=20 is_beside_writer=false"), "{told}");
}

/// A follower must not keep half of what it could not read as a whole.
#[tokio::test]
async fn a_reader_goes_on_when_an_index_is_readable_again() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(folder.path()).await;
    grow(&writer, 200).await;
    let old = AppendBatch::new().write(stream("old"), ExpectedVersion::Any, [event("{}")]);
    writer.append(old.clone()).await.unwrap();
    while files(folder.path(), ".index").len() < 2 {
        grow(&writer, 10).await;
    }
    let reader = follow(folder.path()).await;
    // Nothing is read yet: the index must be asked, not memory.
    let before = reader.head().borrow().value();
    // One frame: first a new stream, then a stream that only the index knows.
    let mut new = event("{}");
    new.name = EventName::from_static("account.closed");
    let batch = AppendBatch::new().write(stream("new"), ExpectedVersion::Any, [new]).write(
        stream("old"),
        ExpectedVersion::Any,
        [event("{}")],
    );
    writer.append(batch).await.unwrap();
    // Done twice, it is undone.
    let flip = || {
        for path in files(folder.path(), ".index") {
            let file = File::options().read(true).write(true).open(path).unwrap();
            let mut bytes = [0; 64];
            file.read_exact_at(&mut bytes, 0).unwrap();
            file.write_all_at(&bytes.map(|byte| !byte), 0).unwrap();
        }
    };
    flip();
    for _ in 0..3 {
        assert!(reader.read(ReadQuery::log()).await.is_err());
    }
    flip();
    assert_eq!(check_log(&reader).await.value(), before + 2);
    let page = reader.read(ReadQuery::stream(stream("new"))).await.unwrap();
    assert_eq!(page.events.len(), 1);
    writer.close().await.unwrap();
}

/// A document that is overwritten again and again takes bounded space, and its last value counts.
#[tokio::test]
async fn documents_give_their_space_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let kept = WriteBatch::new().put("kept", ExpectedRevision::Any, "from the first segment");
    let first = store.write(kept).await.unwrap();
    let mut last = first;
    for round in 0..240_u32 {
        let value = vec![round as u8; 256 << 10];
        let batch = WriteBatch::new().put("large", ExpectedRevision::Any, value);
        last = store.write(batch).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let entries = fs::read_dir(folder.path().join("documents")).unwrap();
    let bytes: u64 = entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 48 << 20, "{bytes} bytes for one document of 256 KiB");
    let store = open(folder.path()).await;
    let kept = store.get(b"kept").await.unwrap().unwrap();
    assert_eq!((kept.revision, &kept.value[..]), (first, &b"from the first segment"[..]));
    let large = store.get(b"large").await.unwrap().unwrap();
    assert_eq!((large.revision, large.value[0]), (last, 239));
    store.close().await.unwrap();
}

/// Callers look up old facts before they queue, while the writer goes through many segments.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn looking_up_old_streams_never_stalls_the_writer() {
    const STREAMS: usize = 3_000;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let append = |task: usize| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in (task..12_000).step_by(64) {
                let stream = stream(&format!("s{}", n * 7_919 % STREAMS));
                let batch =
                    AppendBatch::new().write(stream, ExpectedVersion::Any, [event("{\"n\":1}")]);
                store.append(batch).await.unwrap();
            }
        })
    };
    let tasks: Vec<_> = (0..64).map(append).collect();
    for task in tasks {
        tokio::time::timeout(std::time::Duration::from_secs(50), task).await.unwrap().unwrap();
    }
    assert_eq!(check_log(&store).await.value(), 12_000);
    store.close().await.unwrap();
}
