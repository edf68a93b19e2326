//! A replay of a change that erased more than one step does: nothing is skipped or done twice at a
//! step's end.

use factum_kernel::{
    AppendBatch, EventStore, ExpectedVersion, ReadQuery, StreamChange, StreamVersion,
};
use factum_testing::positions;

use crate::fresh::{check_log, event, files, open, stream};

/// The number of events to erase: more than two steps erase.
const ERASED: u64 = 2 * 4_096 + 5;
const KEPT: u64 = 9;

#[tokio::test]
async fn erasing_more_versions_than_a_step_skips_none_when_it_is_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    for count in [4_000, 4_000, ERASED - 8_000 + KEPT] {
        let events = (0..count).map(|_| event("{}"));
        let batch = AppendBatch::new().write(stream("long"), ExpectedVersion::Any, events);
        store.append(batch).await.unwrap();
    }
    let change = StreamChange::TruncateBefore(StreamVersion::new(ERASED + 1));
    store.change(&stream("long"), change).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    files(folder.path(), ".index").iter().for_each(|run| std::fs::remove_file(run).unwrap());
    let store = open(folder.path()).await;
    let kept: Vec<_> = (ERASED + 1..=ERASED + KEPT).collect();
    assert_eq!(positions(&store, ReadQuery::log()).await, kept);
    assert_eq!(check_log(&store).await.value(), ERASED + KEPT);
    store.close().await.unwrap();
}
