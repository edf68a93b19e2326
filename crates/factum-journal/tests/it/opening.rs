//! Opening: the lock, the folder, the URL.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use factum_backend::{OpenContext, OpenStore, Registry, StoreUrl};
use factum_journal::{JournalKind, JournalOptions, JournalStore};
use factum_kernel::{
    AppendBatch, Content, EventName, EventStore, ExpectedVersion, Limits, NewEvent, StoreErrorKind,
    SystemClock, SystemIds,
};

use crate::fresh::{append_one, check_log, files, grow, new_id, open, stream};

fn context() -> OpenContext {
    OpenContext::new(Arc::new(SystemClock), Arc::new(SystemIds))
}

#[tokio::test]
async fn a_second_writer_is_told_who_holds_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let refused = JournalStore::open(JournalOptions::new(folder.path())).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Unavailable);
    let pid = format!("pid={} ", std::process::id());
    assert!(refused.to_string().contains(&pid), "{refused}");
    store.close().await.unwrap();
    open(folder.path()).await.close().await.unwrap();
}

/// The threads of a dropped store finish what was accepted, and hold the lock until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_dropped_is_waited_for_by_the_next_opening() {
    let folder = tempfile::tempdir().unwrap();
    let (begin, begun) = mpsc::channel();
    let (go_on, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    let delay = Arc::new(move || {
        begin.send(()).unwrap();
        wait.lock().unwrap().recv().unwrap();
        Duration::ZERO
    });
    let options = JournalOptions::new(folder.path()).with_commit_delay(delay);
    let store = JournalStore::open(options).await.unwrap();
    let appending = store.clone();
    let appending = tokio::spawn(async move { append_one(&appending).await });
    tokio::task::spawn_blocking(move || begun.recv().unwrap()).await.unwrap();
    appending.abort();
    assert!(appending.await.is_err());
    drop(store);
    let path = folder.path().to_owned();
    let opening = tokio::spawn(async move { JournalStore::open(JournalOptions::new(path)).await });
    // The commit goes on only after the opening had its chance to be refused.
    for _ in 0..1_000 {
        tokio::task::spawn_blocking(std::thread::yield_now).await.unwrap();
    }
    go_on.send(()).unwrap();
    let store = opening.await.unwrap().unwrap();
    assert_eq!(check_log(&store).await.value(), 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_path_opens_the_journal_that_is_there_and_makes_one_where_nothing_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/data");
    let registry = Registry::new().with(JournalKind);
    assert_eq!(JournalKind.recognise(&path), None);
    let stores = registry.open(path.to_str().unwrap(), &context()).await.unwrap();
    stores.events.close().await.unwrap();
    let url = StoreUrl::of_path("journal", &path);
    assert_eq!(JournalKind.recognise(&path), Some(url));
}

#[tokio::test]
async fn what_can_not_be_opened_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "text").unwrap();
    let refused = async |url: String| {
        let url = StoreUrl::parse(&url).unwrap();
        let error = JournalKind.open(&url, &context()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Invalid, "{error}");
        error.to_string()
    };
    let shown = folder.path().display();
    assert!(refused(format!("journal:{}", file.display())).await.contains("is a file"));
    assert!(refused("journal:".into()).await.contains("lives in a folder"));
    assert!(refused("journal:~/data".into()).await.contains("only a shell knows what ~ is"));
    assert!(refused(format!("journal:{shown}?mod=read")).await.contains("option=mod"));
    assert!(refused(format!("journal:{shown}?mode=raed")).await.contains("mode=raed"));
    assert!(refused(format!("journal:{shown}?mode=read")).await.contains("no journal to read"));
}

#[tokio::test]
async fn a_folder_with_other_files_is_no_place_for_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let other = path.join("thesis.txt");
    std::fs::write(&other, "text").unwrap();
    let refused = JournalStore::open(JournalOptions::new(path)).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Invalid);
    let wanted = format!(
        "the folder holds other files and no journal, choose an empty one: path={}",
        path.display()
    );
    assert!(refused.to_string().ends_with(&wanted), "{refused}");
    assert_eq!(std::fs::read_dir(path).unwrap().count(), 1, "something was made all the same");
    std::fs::remove_file(&other).unwrap();
    // As after a crash in the middle of the first opening.
    open(path).await.close().await.unwrap();
    std::fs::rename(path.join("factum-journal"), path.join("factum-journal.unfinished")).unwrap();
    open(path).await.close().await.unwrap();
    // Beside a marker, any other files may be in the folder.
    std::fs::write(&other, "text").unwrap();
    open(path).await.close().await.unwrap();
}

/// A disk of its own is a good place for a journal.
#[tokio::test]
async fn a_mount_point_is_an_empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("lost+found")).unwrap();
    open(folder.path()).await.close().await.unwrap();
}

/// The index is only a shortcut through the log.
#[tokio::test]
async fn a_lost_index_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    grow(&store, 2_000).await;
    store.close().await.unwrap();
    drop(store);
    let runs = files(folder.path(), ".index");
    assert!(!runs.is_empty());
    runs.iter().for_each(|run| std::fs::remove_file(run).unwrap());
    let store = open(folder.path()).await;
    assert_eq!(check_log(&store).await.value(), 2_000);
    store.close().await.unwrap();
    let report = factum_journal::verify(folder.path()).unwrap();
    assert!(report.is_whole() && report.runs > 0, "{report:?}");
}

/// Runs are merged, so that a search does not ask one run per segment.
#[tokio::test]
async fn many_segments_have_few_runs() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    grow(&store, 12_000).await;
    store.close().await.unwrap();
    drop(store);
    // The opening finishes the merges that had no time before.
    let store = open(folder.path()).await;
    let segments = files(folder.path(), ".log").len();
    let is_few = || files(folder.path(), ".index").len() <= 7 * 3;
    for _ in 0..10_000 {
        if is_few() {
            break;
        }
        tokio::task::spawn_blocking(std::thread::yield_now).await.unwrap();
    }
    assert!(segments > 60 && is_few(), "{segments} segments");
    assert_eq!(check_log(&store).await.value(), 12_000);
    store.close().await.unwrap();
    let report = factum_journal::verify(folder.path()).unwrap();
    assert!(report.is_whole(), "{:?}", report.damages);
}

#[tokio::test]
async fn limits_whose_batches_no_frame_holds_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |events, bytes| {
        let mut limits = Limits::default();
        (limits.batch_events_max, limits.batch_bytes_max) = (events, bytes);
        JournalStore::open(JournalOptions::new(folder.path()).with_limits(limits))
    };
    for (events, bytes) in
        [(2_000_000, 8 << 20), (400_000, 32 << 20), (usize::MAX, 1), (1, 33 << 20)]
    {
        let refused = open(events, bytes).await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::Invalid, "{refused}");
    }
    // As many events as fit.
    let events = 100_000;
    let bytes = 8 << 20;
    let store = open(events, bytes).await.unwrap();
    let event = |_| NewEvent::new(new_id(), EventName::from_static("e"), Content::Json, "");
    let batch = AppendBatch::new().write(stream("s"), ExpectedVersion::Any, (0..events).map(event));
    store.append(batch).await.unwrap();
    store.close().await.unwrap();
    let store = open(events, bytes).await.unwrap();
    assert_eq!(check_log(&store).await.value() as usize, events);
    store.close().await.unwrap();
}
