//! Work that is done in steps, when there is more of it than one step can do: nothing is skipped or
//! done twice at the end of a step.

use std::{path::Path, time::Duration};

use factum_journal::{JournalOptions, JournalStore};
use factum_kernel::{
    AppendBatch, Clock, Content, EventName, EventStore, ExpectedVersion, NewEvent, ReadQuery,
    Retention, StreamChange, StreamVersion, SystemClock,
};
use factum_testing::VirtualClock;

use crate::fresh::{files, new_id, pages, stream};

/// The number of events to erase: more than two steps erase.
const ERASED: u64 = 2 * 4_096 + 5;

fn batch(key: &str, events: u64) -> AppendBatch {
    let event = |_| NewEvent::new(new_id(), EventName::from_static("it"), Content::Json, "");
    AppendBatch::new().write(stream(key), ExpectedVersion::Any, (0..events).map(event))
}

async fn open(path: &Path, clock: &VirtualClock) -> JournalStore {
    let options = JournalOptions::new(path).with_clock(std::sync::Arc::new(clock.clone()));
    JournalStore::open(options).await.unwrap()
}

/// The erased ranges of the log, and the number of remaining events.
async fn erased(store: &JournalStore) -> (Vec<(u64, u64)>, usize) {
    let pages = pages(store, ReadQuery::log()).await;
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for range in pages.iter().flat_map(|page| &page.erased) {
        match ranges.last_mut() {
            Some(last) if last.1 + 1 == range.first.value() => last.1 = range.last.value(),
            _ => ranges.push((range.first.value(), range.last.value())),
        }
    }
    (ranges, pages.iter().map(|page| page.events.len()).sum())
}

#[tokio::test]
async fn erasing_more_versions_than_a_step_skips_none_now_and_when_it_is_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let clock = VirtualClock::new(SystemClock.now());
    let store = open(folder.path(), &clock).await;
    let kept = 9;
    for events in [4_000, 4_000, ERASED - 8_000 + kept] {
        store.append(batch("long", events)).await.unwrap();
    }
    let change = StreamChange::TruncateBefore(StreamVersion::new(ERASED + 1));
    let info = store.change(&stream("long"), change).await.unwrap();
    assert_eq!(info.bounds.erased_through.value(), ERASED);
    let expected = (vec![(1, ERASED)], kept as usize);
    assert_eq!(erased(&store).await, expected);
    store.close().await.unwrap();
    drop(store);
    files(folder.path(), ".index").iter().for_each(|run| std::fs::remove_file(run).unwrap());
    let store = open(folder.path(), &clock).await;
    assert_eq!(erased(&store).await, expected);
    store.close().await.unwrap();
}

/// All old events of a stream were once read, on the thread that all appends wait for.
#[tokio::test]
async fn retention_by_age_finds_the_first_that_is_young_enough_among_many() {
    const OLD: u64 = 3 * 1_024 + 7;
    let folder = tempfile::tempdir().unwrap();
    let clock = VirtualClock::new(SystemClock.now());
    let store = open(folder.path(), &clock).await;
    store.append(batch("aged", OLD)).await.unwrap();
    clock.advance(Duration::from_secs(60));
    store.append(batch("aged", 2)).await.unwrap();
    let retention = Retention { events_max: None, age_max: Some(Duration::from_secs(30)) };
    let info = store.change(&stream("aged"), StreamChange::Retain(retention)).await.unwrap();
    assert_eq!(info.bounds.erased_through.value(), OLD);
    assert_eq!(erased(&store).await, (vec![(1, OLD)], 2));
    // And with events that were appended since, in one group or several.
    clock.advance(Duration::from_secs(31));
    store.append(batch("aged", 3)).await.unwrap();
    assert_eq!(erased(&store).await, (vec![(1, OLD + 2)], 3));
    clock.advance(Duration::from_secs(31));
    store.append(batch("other", 1)).await.unwrap();
    store.append(batch("aged", 1)).await.unwrap();
    assert_eq!(erased(&store).await, (vec![(1, OLD + 5)], 2));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_retry_is_recognised_further_back_than_a_step_looks() {
    let folder = tempfile::tempdir().unwrap();
    let clock = VirtualClock::new(SystemClock.now());
    let store = open(folder.path(), &clock).await;
    for before in [0, 1, 63, 64, 65, 128, 300] {
        let key = format!("b{before}");
        let asked = batch(&format!("b{before}"), 2);
        let first = store.append(asked.clone()).await.unwrap();
        if before > 0 {
            store.append(batch(&key, before)).await.unwrap();
        }
        let again = store.append(asked.repeated()).await.unwrap();
        assert_eq!((again.first, again.replayed), (first.first, true), "{before} versions back");
    }
    store.close().await.unwrap();
}
