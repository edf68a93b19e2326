//! The state after events are erased.

use factum_kernel::{
    AppendBatch, EventStore, ExpectedVersion, Position, ReadQuery, StreamChange, Tag,
};

use crate::fresh::{Fresh, event, one, positions, stream, tagged};

const DELETE: StreamChange = StreamChange::Delete(ExpectedVersion::Any);

#[tokio::test]
async fn ranges_are_merged_in_whatever_order_they_come() {
    let fresh = Fresh::open().await;
    let keys = ["a", "b", "c", "d", "e"];
    for key in keys {
        fresh.store.append(one(key)).await.unwrap();
    }
    for key in ["b", "d", "c"] {
        fresh.store.change(&stream(key), DELETE).await.unwrap();
    }
    let count = |sql| fresh.raw().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM erased"), 1);
    assert_eq!(positions(&fresh.store, ReadQuery::log()).await, [1, 5]);
    // A range is cut to what the page covers, in both directions.
    let query = ReadQuery::log().after(Position::new(2));
    let page = fresh.store.read(query.with_events_max(1)).await.unwrap();
    assert_eq!((page.erased[0].first.value(), page.erased[0].last.value()), (3, 4));
    let page = fresh.store.read(ReadQuery::log().backward().with_events_max(1)).await.unwrap();
    assert_eq!((page.scanned_through.value(), page.erased.len()), (5, 0));
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
    fresh.store.change(&stream("ada"), DELETE).await.unwrap();
    fresh.store.close().await.unwrap();
    let file = std::fs::read(fresh.path()).unwrap();
    let holds = |text: &str| file.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("email:ada@other"));
    assert!(!holds("the-secret-payload") && !holds("ada@secret"));
}
