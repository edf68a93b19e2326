use factum_testing::assert_prechecks;

use super::*;

/// All other appends once waited while the writer checked the conditions.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_on_what_is_far_back_are_looked_at_before_their_batch_is_queued() {
    let folder = tempfile::tempdir().unwrap();
    assert_prechecks(async |delay| {
        let options = SqliteOptions::new(folder.path().join("events.db")).with_commit_delay(delay);
        let store = SqliteStore::open(options).await.unwrap();
        let prechecks = store.prechecks.clone();
        (store, move || !prechecks.is_empty())
    })
    .await;
}
