//! Pages that look at many events.

use factum_kernel::{EventStore, Query, QueryItem, ReadQuery, Tag};

use crate::fresh::{Fresh, pages, tagged};

#[tokio::test]
async fn a_page_without_a_match_still_ends_within_its_work() {
    let fresh = Fresh::open().await;
    fresh.store.append(tagged("ada", &["a:1"])).await.unwrap();
    fresh.store.append(tagged("ada", &["b:1"])).await.unwrap();
    // Rows of the index only: 120,000 events in turn, more than a page may go through at once.
    fresh
        .run(
            "INSERT INTO event_tags SELECT 'a:1', p FROM generate_series(3, 120000, 2) AS p;
             INSERT INTO event_tags SELECT 'b:1', p FROM generate_series(4, 120000, 2) AS p;
             INSERT INTO erased VALUES (3, 120000); ANALYZE event_tags",
        )
        .await;
    let tags = vec![Tag::new("a", 1).unwrap(), Tag::new("b", 1).unwrap()];
    let both = Query::new([QueryItem { types: vec![], tags }]);
    for query in [ReadQuery::matching(both.clone()), ReadQuery::matching(both).backward()] {
        let pages = pages(&fresh.store, query).await;
        assert!(pages.len() > 1, "one page may not look at everything");
        assert!(pages.iter().all(|page| page.events.is_empty()));
    }
}
