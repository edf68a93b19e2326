//! The state after events are erased.

use factum_kernel::{
    AppendBatch, AppendError, EventStore, ExpectedVersion, Position, ReadQuery, StreamVersion, Tag,
};
use factum_testing::deletion;

use crate::fresh::{Fresh, check_log, event, one, positions, reopen, stream, tagged};

#[tokio::test]
async fn ranges_are_merged_in_whatever_order_they_come() {
    let fresh = Fresh::open().await;
    let keys = ["a", "b", "c", "d", "e"];
    for key in keys {
        fresh.store.append(one(key)).await.unwrap();
    }
    for key in ["b", "d", "c"] {
        fresh.store.append(deletion(stream(key))).await.unwrap();
    }
    let count = |sql| fresh.raw().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM erased"), 1);
    assert_eq!(positions(&fresh.store, ReadQuery::log()).await, [1, 5, 6, 7, 8]);
    // A range is cut to what the page covers, in both directions.
    let query = ReadQuery::log().after(Position::new(2));
    let page = fresh.store.read(query.with_events_max(1)).await.unwrap();
    assert_eq!((page.erased[0].first.value(), page.erased[0].last.value()), (3, 4));
    let page = fresh.store.read(ReadQuery::log().backward().with_events_max(1)).await.unwrap();
    assert_eq!((page.scanned_through.value(), page.erased.len()), (8, 0));
    let back =
        ReadQuery::log().from(factum_kernel::ReadFrom::Position(Position::new(3))).backward();
    let page = fresh.store.read(back).await.unwrap();
    assert_eq!((page.erased[0].first.value(), page.erased[0].last.value()), (2, 3));
}

#[tokio::test]
async fn nothing_of_an_erased_event_is_left_in_the_file() {
    let fresh = Fresh::open().await;
    let secret = event("the-secret-payload").with_tag(Tag::new("email", "ada@secret").unwrap());
    let write = AppendBatch::new().write(stream("ada"), ExpectedVersion::Any, [secret]);
    fresh.store.append(write).await.unwrap();
    fresh.store.append(tagged("bob", &["email:ada@other"])).await.unwrap();
    fresh.store.append(deletion(stream("ada"))).await.unwrap();
    fresh.store.close().await.unwrap();
    let file = std::fs::read(fresh.path()).unwrap();
    let holds = |text: &str| file.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("email:ada@other"));
    assert!(!holds("the-secret-payload") && !holds("ada@secret"));
}

/// The statements of an older program that deletes a stream of one event: no event says so.
const DELETE_SILENTLY: &str = "
    INSERT INTO erased SELECT position, position FROM events WHERE stream_no = ?1;
    UPDATE log SET last_at = max(last_at, (SELECT max(recorded_at) FROM events));
    DELETE FROM event_tags WHERE position IN (SELECT position FROM events WHERE stream_no = ?1);
    DELETE FROM events WHERE stream_no = ?1;
    UPDATE streams SET erased_through = 2, deleted_at = 2 WHERE stream_no = ?1";

#[tokio::test]
async fn deletions_without_an_event_stay_and_others_come_beside_them() {
    let fresh = Fresh::open().await;
    fresh.store.append(one("ada")).await.unwrap();
    fresh.store.append(tagged("bob", &["email:bob"])).await.unwrap();
    fresh.store.close().await.unwrap();
    fresh.raw().execute_batch(&DELETE_SILENTLY.replace("?1", "2")).unwrap();

    let store = reopen(&fresh.path()).await;
    let two = StreamVersion::new(2);
    let info = store.stream_info(&stream("bob")).await.unwrap();
    let bounds = info.bounds;
    assert_eq!((bounds.version, bounds.erased_through, bounds.deleted_at), (two, two, two));
    let page = store.read(ReadQuery::stream(stream("bob"))).await.unwrap();
    assert!(page.events.is_empty() && info.first_at.is_none());
    let refused = store.append(deletion(stream("bob"))).await;
    let Err(AppendError::Conflict(conflict)) = refused else { panic!("{refused:?}") };
    assert_eq!(conflict.deleted_at, Some(two));
    // Nothing is left at the end of the log, and its positions go on.
    let begun = AppendBatch::new().write(stream("bob"), two, [event("{}")]);
    let begun = store.append(begun).await.unwrap();
    assert_eq!((begun.first.value(), begun.versions[0].value()), (3, 3));
    let deleted = store.append(deletion(stream("bob"))).await.unwrap();
    assert_eq!((deleted.first.value(), deleted.versions[0].value()), (4, 4));
    assert_eq!(positions(&store, ReadQuery::stream(stream("bob"))).await, [4]);
    assert_eq!(check_log(&store).await.value(), 4);
    store.close().await.unwrap();
}
