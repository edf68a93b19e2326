//! A store that outlives the runtime in which it was opened.

use std::time::Duration;

use factum_kernel::{
    DocumentStore, EventStore, ExpectedRevision, ReadQuery, StoreError, StoreErrorKind, WriteBatch,
};
use factum_postgres::PostgresStore;
use factum_testing::drive;
use tokio::{runtime::Runtime, time::timeout};

use crate::{fresh::one, server::Schema};

const LONG: Duration = Duration::from_secs(20);

/// Uses every operation of a store, each on several connections.
async fn use_all(store: &PostgresStore) {
    for _ in 0..3 {
        let appended = store.append(one("ada")).await.unwrap();
        let (page, pages) = tokio::join!(
            store.read(ReadQuery::log()),
            store.read(ReadQuery::log().backward().with_events_max(1)),
        );
        assert!(!page.unwrap().events.is_empty());
        assert_eq!(pages.unwrap().events[0].position(), appended.last);
        let put = WriteBatch::new().put("key", ExpectedRevision::Any, "value");
        store.write(put).await.unwrap();
    }
    let mut head = store.head();
    let next = head.borrow().next();
    store.append(one("ada")).await.unwrap();
    head.wait_for(|head| *head >= next).await.unwrap();
}

#[test]
fn a_store_is_used_on_another_runtime_when_the_first_has_ended() {
    let schema = Schema::new();
    let first = Runtime::new().unwrap();
    let store = first.block_on(async {
        let store = PostgresStore::open(schema.options()).await.unwrap();
        use_all(&store).await;
        store
    });
    drop(first);
    Runtime::new().unwrap().block_on(async {
        timeout(LONG, use_all(&store)).await.expect("it answers");
        timeout(LONG, EventStore::close(&store)).await.expect("it closes").unwrap();
    });
}

#[test]
fn outside_of_a_runtime_it_says_so_whether_it_is_connected_or_not() {
    let schema = Schema::new();
    let runtime = Runtime::new().unwrap();
    let store = runtime.block_on(async {
        let store = PostgresStore::open(schema.options()).await.unwrap();
        use_all(&store).await;
        store
    });
    let is_refused = |error: StoreError| {
        assert_eq!(error.kind(), StoreErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("needs a tokio runtime"), "{error}");
    };
    let all_are_refused = || {
        is_refused(drive(store.read(ReadQuery::log())).unwrap_err());
        is_refused(drive(store.get(b"key")).unwrap_err());
        is_refused(drive(EventStore::close(&store)).unwrap_err());
        is_refused(drive(PostgresStore::open(schema.options())).unwrap_err());
    };
    all_are_refused();
    // Its connections end with the runtime that drives them.
    drop(runtime);
    all_are_refused();
    Runtime::new().unwrap().block_on(async {
        use_all(&store).await;
        EventStore::close(&store).await.unwrap();
    });
}
