//! Reads beside writes, and pages that look at many events.

use factum_kernel::{EventStore, Query, QueryItem, ReadQuery, Tag};

use crate::fresh::{Fresh, one, pages, tagged};

#[tokio::test]
async fn a_held_snapshot_neither_blocks_the_writer_nor_moves() {
    let fresh = Fresh::open().await;
    fresh.store.append(one("ada")).await.unwrap();
    let reader = fresh.raw();
    let count = || reader.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0));
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(count().unwrap(), 1);
    for _ in 0..50 {
        fresh.store.append(one("ada")).await.unwrap();
    }
    assert_eq!(count().unwrap(), 1, "the snapshot is the one that was taken");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(count().unwrap(), 51);
}

#[tokio::test]
async fn a_page_without_a_match_still_ends_within_its_work() {
    let fresh = Fresh::open().await;
    fresh.store.append(tagged("ada", &["a:1"])).await.unwrap();
    fresh.store.append(tagged("ada", &["b:1"])).await.unwrap();
    // Rows of the index only: 60,000 events in turn, more than a page may go through at once.
    fresh
        .raw()
        .execute_batch(
            "WITH RECURSIVE n(p) AS (SELECT 3 UNION ALL SELECT p + 1 FROM n WHERE p < 60000)
             INSERT INTO event_tags SELECT 1 + p % 2, p FROM n;
             INSERT INTO erased VALUES (3, 60000);",
        )
        .unwrap();
    let tags = vec![Tag::new("a", 1).unwrap(), Tag::new("b", 1).unwrap()];
    let both = Query::new([QueryItem { types: vec![], tags }]);
    for query in [ReadQuery::matching(both.clone()), ReadQuery::matching(both).backward()] {
        let pages = pages(&fresh.store, query).await;
        assert!(pages.len() > 1, "one page may not look at everything");
        assert!(pages.iter().all(|page| page.events.is_empty()));
    }
}
