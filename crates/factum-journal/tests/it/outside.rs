//! The journal without a runtime: reads from memory and from disk give the same answers.

use factum_journal::{Access, JournalOptions, JournalStore};
use factum_kernel::{
    DocumentStore, EventStore, ExpectedRevision, KeyRange, PAGE_EVENTS_DEFAULT, ReadQuery,
    ScanQuery, WriteBatch,
};
use factum_testing::drive;

use crate::fresh::{grow, open, stream};

#[test]
fn everything_works_outside_of_a_runtime_be_it_in_memory_or_not() {
    let folder = tempfile::tempdir().unwrap();
    drive(async {
        let store = open(folder.path()).await;
        grow(&store, 100).await;
        // A page that is larger than the default is always read on a thread that may wait.
        for events_max in [PAGE_EVENTS_DEFAULT, PAGE_EVENTS_DEFAULT + 1] {
            let query = ReadQuery::log().with_events_max(events_max);
            assert_eq!(store.read(query).await.unwrap().events.len(), 100);
        }
        assert_eq!(store.stream_info(&stream("s3")).await.unwrap().bounds.version.value(), 10);
        let batch = WriteBatch::new().put("a", ExpectedRevision::Any, "1");
        store.write(batch).await.unwrap();
        assert_eq!(store.get(b"a").await.unwrap().unwrap().value, "1");
        store.clear(KeyRange::all()).await.unwrap();
        assert!(store.scan(ScanQuery::new(KeyRange::all())).await.unwrap().documents.is_empty());
        // A follower reads the disk each time.
        let options = JournalOptions::new(folder.path()).with_access(Access::ReadOnly);
        let reader = JournalStore::open(options).await.unwrap();
        assert_eq!(reader.read(ReadQuery::log()).await.unwrap().head.value(), 100);
        reader.close().await.unwrap();
        store.close().await.unwrap();
    });
}
