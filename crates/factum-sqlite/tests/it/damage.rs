//! A flipped bit in a closed store: reads give the same events or an error, never other events.

use std::{fs, path::Path};

use factum_kernel::{
    AppendBatch, EventStore, ExpectedVersion, Query, ReadQuery, StoreError, StoreErrorKind, Tag,
};
use factum_sqlite::{Access, SqliteOptions, SqliteStore};
use factum_testing::deletion;

use crate::fresh::{Fresh, category, event, stream, tagged};

const FLIPS: u64 = 400;

/// The properties of an event that a reader sees.
type Seen = (u64, u64, String, String, Vec<String>, Vec<u8>, String);

async fn made() -> Fresh {
    let fresh = Fresh::open().await;
    for n in 0..60 {
        let key = format!("key-{}", n % 7);
        fresh.store.append(tagged(&key, &[&format!("n:{}", n % 5), "all:1"])).await.unwrap();
        let large = event(&format!("{{\"amount\":{n}}}").repeat(20));
        let batch = AppendBatch::new().write(stream("large"), ExpectedVersion::Any, [large]);
        fresh.store.append(batch).await.unwrap();
    }
    fresh.store.append(deletion(stream("key-3"))).await.unwrap();
    fresh.store.close().await.unwrap();
    fresh
}

async fn open(path: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(SqliteOptions::new(path).with_access(Access::ReadOnly)).await
}

async fn seen(store: &SqliteStore, query: ReadQuery) -> Result<Vec<Seen>, StoreError> {
    let mut seen = Vec::new();
    let mut next = Some(query);
    while let Some(query) = next {
        let page = store.read(query.clone()).await?;
        seen.extend(page.events.iter().map(|event| {
            (
                event.position().value(),
                event.version().value(),
                event.stream().to_string(),
                event.name().to_owned(),
                event.tags().map(str::to_owned).collect(),
                event.payload().to_vec(),
                format!("{:?} {:?}", event.id(), event.recorded_at()),
            )
        }));
        next = query.next(&page);
    }
    Ok(seen)
}

/// Reads through an index whose damage may hide events, but must have no other effect.
fn by_index() -> Vec<ReadQuery> {
    let tag = |text| ReadQuery::matching(Query::tag(Tag::parse(text).unwrap()));
    let streams = ["large", "key-0", "key-5"].map(|key| ReadQuery::stream(stream(key)));
    let mut queries = vec![ReadQuery::category(category()), tag("all:1"), tag("n:2")];
    queries.extend(streams);
    queries
}

fn logs() -> [ReadQuery; 2] {
    [ReadQuery::log(), ReadQuery::log().backward()]
}

/// A fixed sequence of numbers: <https://prng.di.unimi.it/splitmix64.c>.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[tokio::test]
async fn a_flipped_bit_gives_the_same_events_or_an_error() {
    let fresh = made().await;
    let whole = fs::read(fresh.path()).unwrap();
    let store = open(&fresh.path()).await.unwrap();
    let mut truth = Vec::new();
    let mut truth_by_index = Vec::new();
    for query in logs() {
        truth.push(seen(&store, query).await.unwrap());
    }
    for query in by_index() {
        truth_by_index.push(seen(&store, query).await.unwrap());
    }
    store.close().await.unwrap();
    let mut random = 1;
    let mut errors = 0;
    let mut hidden = 0;
    for _ in 0..FLIPS {
        let at = (splitmix(&mut random) % (whole.len() as u64 * 8)) as usize;
        let mut damaged = whole.clone();
        damaged[at / 8] ^= 1 << (at % 8);
        let path = fresh.folder.path().join("damaged.db");
        fs::write(&path, damaged).unwrap();
        let Ok(store) = open(&path).await else {
            errors += 1;
            continue;
        };
        for (query, truth) in logs().into_iter().zip(&truth) {
            match seen(&store, query).await {
                Ok(seen) => assert!(seen == *truth, "other events: byte={} bit={}", at / 8, at % 8),
                Err(_) => errors += 1,
            }
        }
        for (query, truth) in by_index().into_iter().zip(&truth_by_index) {
            let Ok(seen) = seen(&store, query).await else { continue };
            let mut rest = truth.iter();
            let is_part = seen.iter().all(|event| rest.any(|it| it == event));
            assert!(is_part, "other events by an index: byte={} bit={}", at / 8, at % 8);
            hidden += u64::from(seen.len() < truth.len());
        }
        store.close().await.unwrap();
    }
    assert!(errors > FLIPS / 4, "the flips hit nothing: errors={errors}");
    assert!(hidden < FLIPS / 10, "an index hides too much: hidden={hidden}");
}

#[tokio::test]
async fn a_changed_payload_names_the_position_the_file_and_the_remedy() {
    let fresh = made().await;
    fresh.raw().execute_batch("UPDATE events SET payload = x'00' WHERE position = 4").unwrap();
    let error = open(&fresh.path()).await.unwrap().read(ReadQuery::log()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    let text = error.to_string();
    for part in ["position=4", "events.db", "restore it from a backup"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn a_missing_row_is_damage_and_no_hole() {
    for position in [5, 120] {
        let fresh = made().await;
        // A damaged tree could hide it like this: from the table, but not from the index.
        let connection = fresh.raw();
        connection.execute_batch("PRAGMA writable_schema = ON").unwrap();
        let hide = "DELETE FROM sqlite_schema WHERE name = 'events_by_category'";
        let index: String = connection
            .query_row(
                "SELECT sql FROM sqlite_schema WHERE name = 'events_by_category'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        let root: i64 = connection
            .query_row(
                "SELECT rootpage FROM sqlite_schema WHERE name = 'events_by_category'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        connection.execute_batch(hide).unwrap();
        drop(connection);
        let connection = fresh.raw();
        connection.execute("DELETE FROM events WHERE position = ?1", [position]).unwrap();
        connection.execute_batch("PRAGMA writable_schema = ON").unwrap();
        let show =
            "INSERT INTO sqlite_schema VALUES ('index', 'events_by_category', 'events', ?1, ?2)";
        connection.execute(show, (root, index)).unwrap();
        drop(connection);
        let error = match open(&fresh.path()).await {
            Ok(store) => store.read(ReadQuery::log()).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{position}: {error}");
        assert!(error.to_string().contains("missing"), "{position}: {error}");
    }
}
