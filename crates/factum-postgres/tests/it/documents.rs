//! Documents that two sessions change at the same time.

use std::time::Duration;

use factum_kernel::{
    Clock, DocumentStore, ExpectedRevision, KeyRange, ScanQuery, SystemClock, WriteBatch,
    WriteError,
};
use tokio_postgres::Client;

use crate::fresh::Fresh;

/// A session that has begun a transaction in the log's schema.
async fn holder(fresh: &Fresh) -> Client {
    let holder = fresh.schema.raw().await;
    let begin = format!("SET search_path = {}; BEGIN", fresh.schema.name);
    holder.batch_execute(&begin).await.unwrap();
    holder
}

/// Waits until another session waits for a lock of this one.
async fn blocks_another(fresh: &Fresh, holder: &Client) {
    const WAITING: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity
        WHERE $1 = ANY (pg_blocking_pids(pid)))";
    let pid: i32 = holder.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let looks = fresh.schema.raw().await;
    while !looks.query_one(WAITING, &[&pid]).await.unwrap().get::<_, bool>(0) {
        SystemClock.sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_write_to_a_document_that_is_being_cleared_waits_and_then_conflicts() {
    let fresh = Fresh::open().await;
    let put = WriteBatch::new().put("ada", ExpectedRevision::Absent, "1");
    let revision = fresh.store.write(put).await.unwrap();
    // A clear locks the rows of documents, and nothing else that a write waits for.
    let clearing = holder(&fresh).await;
    clearing.batch_execute("DELETE FROM documents WHERE key = 'ada'").await.unwrap();
    let store = fresh.another().await;
    let exact = WriteBatch::new().put("ada", ExpectedRevision::Exact(revision), "2");
    let write = tokio::spawn(async move { store.write(exact).await });
    blocks_another(&fresh, &clearing).await;
    clearing.batch_execute("COMMIT").await.unwrap();
    let written = write.await.unwrap();
    assert!(matches!(written, Err(WriteError::Conflict { .. })), "{written:?}");
    assert_eq!(fresh.store.get(b"ada").await.unwrap(), None);
}

#[tokio::test]
async fn a_clearing_that_meets_another_leaves_nothing_of_its_range() {
    let fresh = Fresh::open().await;
    // One more than a clear removes in one step. A step that removes fewer is the last.
    let insert = "INSERT INTO documents SELECT decode(lpad(n::text, 4, '0'), 'escape'), n, ''
        FROM generate_series(1, 1001) AS n";
    fresh.run(insert).await;
    let another = holder(&fresh).await;
    another.batch_execute("DELETE FROM documents WHERE key = '0500'").await.unwrap();
    let store = fresh.another().await;
    let clear = tokio::spawn(async move { store.clear(KeyRange::all()).await });
    blocks_another(&fresh, &another).await;
    another.batch_execute("COMMIT").await.unwrap();
    clear.await.unwrap().unwrap();
    let left = fresh.store.scan(ScanQuery::new(KeyRange::all())).await.unwrap();
    assert_eq!(left.documents, []);
}
