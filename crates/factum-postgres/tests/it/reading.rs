//! Reads beside writes, and pages at their boundaries.

use factum_core::{
    Direction, DocumentStore, EventStore, ExpectedRevision, KeyRange, Position, Query, QueryItem,
    ReadFrom, ReadQuery, Revision, ScanQuery, StreamVersion, Tag, Timestamp, WriteBatch,
};

use crate::fresh::{Fresh, category, pages, positions, stream, tagged};

#[tokio::test]
async fn pages_of_every_size_tell_the_same_story_in_both_directions() {
    let fresh = Fresh::open().await;
    for n in 0..60 {
        let tags: &[&str] = match n % 4 {
            0 => &["a:1"],
            1 => &["b:1", "a:1"],
            2 => &["b:1"],
            _ => &[],
        };
        fresh.store.append(tagged(&format!("s{}", n % 7), tags)).await.unwrap();
    }
    let tag = |text: &str| Tag::parse(text).unwrap();
    let item =
        |tags: &[&str]| QueryItem { types: vec![], tags: tags.iter().map(|t| tag(t)).collect() };
    let queries = [
        (ReadQuery::log(), 60),
        (ReadQuery::category(category()), 60),
        (ReadQuery::stream(stream("s3")), 9),
        (ReadQuery::matching(Query::new([item(&["a:1"]), item(&["b:1"])])), 45),
        (ReadQuery::matching(Query::new([item(&["a:1", "b:1"])])), 15),
        (ReadQuery::matching(Query::new([item(&["a:1", "never:1"])])), 0),
        (ReadQuery::stream(stream("never")), 0),
    ];
    for (query, count) in queries {
        let whole = positions(&fresh.store, query.clone()).await;
        assert_eq!(whole.len(), count, "{query:?}");
        assert!(whole.is_sorted());
        let reversed: Vec<u64> = whole.iter().rev().copied().collect();
        for size in [1, 2, 7, 59, 60, 61] {
            let query = query.clone().with_events_max(size);
            assert_eq!(positions(&fresh.store, query.clone()).await, whole, "{query:?}");
            assert_eq!(positions(&fresh.store, query.backward()).await, reversed);
        }
        let small = query.with_bytes_max(1);
        assert_eq!(positions(&fresh.store, small).await, whole, "one event comes always");
    }
}

#[tokio::test]
async fn numbers_at_the_end_of_their_range_are_only_far_away() {
    let fresh = Fresh::open().await;
    for _ in 0..3 {
        fresh.store.append(tagged("ada", &["a:1"])).await.unwrap();
    }
    let scopes = [
        ReadQuery::log(),
        ReadQuery::category(category()),
        ReadQuery::stream(stream("ada")),
        ReadQuery::matching(Query::tag(Tag::new("a", 1).unwrap())),
    ];
    for query in scopes {
        for far in [i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
            let from = query.clone().from(ReadFrom::Position(Position::new(far)));
            let page = fresh.store.read(from.clone()).await.unwrap();
            assert_eq!((page.events.len(), page.scanned_through.value()), (0, 3), "{from:?}");
            assert_eq!(positions(&fresh.store, from.backward()).await, [3, 2, 1]);
        }
        let zero = query.clone().from(ReadFrom::Position(Position::ZERO));
        assert_eq!(positions(&fresh.store, zero.clone()).await, [1, 2, 3]);
        let page = fresh.store.read(zero.backward()).await.unwrap();
        assert_eq!((page.events.len(), page.scanned_through.value()), (0, 0));
    }
    let from = |version| {
        let from = ReadFrom::Version(StreamVersion::new(version));
        ReadQuery::stream(stream("ada")).from(from)
    };
    assert!(positions(&fresh.store, from(u64::MAX)).await.is_empty());
    assert_eq!(positions(&fresh.store, from(u64::MAX).backward()).await, [3, 2, 1]);
    let time = ReadQuery::log().from(ReadFrom::Time(Timestamp::MAX));
    assert!(positions(&fresh.store, time.clone()).await.is_empty());
    assert_eq!(positions(&fresh.store, time.backward()).await, [3, 2, 1]);
}

#[tokio::test]
async fn a_page_without_a_match_still_ends_within_its_work() {
    let fresh = Fresh::open().await;
    fresh.store.append(tagged("ada", &["a:1"])).await.unwrap();
    fresh.store.append(tagged("ada", &["b:1"])).await.unwrap();
    // Rows of the index only: 120,000 events in turn, which no page may go through at once.
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

#[tokio::test]
async fn documents_of_any_bytes_come_in_order_page_by_page() {
    let fresh = Fresh::open().await;
    let keys: Vec<Vec<u8>> =
        (0..=255_u8).flat_map(|byte| [vec![byte], vec![byte, 0], vec![byte, 255]]).collect();
    let batch = keys.iter().fold(WriteBatch::new(), |batch, key| {
        batch.put(key.clone(), ExpectedRevision::Absent, vec![0; 3])
    });
    fresh.store.write(batch).await.unwrap();
    for direction in [Direction::Forward, Direction::Backward] {
        let mut left = Some(KeyRange::new(vec![7], vec![200]));
        let mut found: Vec<Vec<u8>> = Vec::new();
        while let Some(range) = left {
            let mut query = ScanQuery::new(range).with_documents_max(17).with_bytes_max(40);
            query.direction = direction;
            let page = fresh.store.scan(query).await.unwrap();
            found.extend(page.documents.iter().map(|document| document.key.to_vec()));
            left = page.rest;
        }
        let mut expected: Vec<_> = keys.clone();
        expected.retain(|key| *key >= vec![7] && *key < vec![200]);
        expected.sort();
        if direction == Direction::Backward {
            expected.reverse();
        }
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn a_range_is_cleared_in_steps_and_revisions_go_on() {
    let fresh = Fresh::open().await;
    let mut last = Revision::ZERO;
    for hundred in 0..25_u32 {
        let batch = (0..100_u32).fold(WriteBatch::new(), |batch, n| {
            let key = (hundred * 100 + n).to_be_bytes().to_vec();
            batch.put(key, ExpectedRevision::Any, "v")
        });
        last = fresh.store.write(batch).await.unwrap();
    }
    let key = |n: u32| n.to_be_bytes().to_vec();
    fresh.store.clear(KeyRange::new(key(10), key(2_400))).await.unwrap();
    let left = |fresh: &Fresh| {
        let store = fresh.store.clone();
        async move { store.scan(ScanQuery::new(KeyRange::all())).await.unwrap().documents.len() }
    };
    assert_eq!(left(&fresh).await, 110);
    fresh.store.clear(KeyRange::all()).await.unwrap();
    assert_eq!(left(&fresh).await, 0);
    let again = WriteBatch::new().put(key(1), ExpectedRevision::Absent, "v");
    assert!(fresh.store.write(again).await.unwrap() > last);
    assert!(fresh.store.get(&key(1)).await.unwrap().is_some());
}
