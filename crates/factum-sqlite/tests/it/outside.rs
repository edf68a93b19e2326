//! The store without a runtime.

use factum_kernel::{DocumentStore, EventStore, ExpectedRevision, KeyRange, ReadQuery, WriteBatch};
use factum_testing::drive;

use crate::fresh::{Fresh, one};

#[test]
fn everything_works_outside_of_a_runtime() {
    drive(async {
        let fresh = Fresh::open().await;
        let store = &fresh.store;
        for _ in 0..3 {
            store.append(one("ada")).await.unwrap();
        }
        assert_eq!(store.read(ReadQuery::log()).await.unwrap().events.len(), 3);
        let batch = WriteBatch::new().put("a", ExpectedRevision::Any, "1");
        store.write(batch).await.unwrap();
        assert_eq!(store.get(b"a").await.unwrap().unwrap().value, "1");
        store.clear(KeyRange::all()).await.unwrap();
        assert!(store.get(b"a").await.unwrap().is_none());
        store.close().await.unwrap();
    });
}
