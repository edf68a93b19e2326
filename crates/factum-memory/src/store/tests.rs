use factum_testing::assert_looks_ahead;

use super::*;

/// All other appends waited while the writer looked at them.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_on_what_is_far_back_are_looked_at_before_their_batch_is_queued() {
    assert_looks_ahead(async |delay| {
        let store = MemoryStore::with_options(MemoryOptions::new().with_commit_delay(delay));
        let foreseen = store.foreseen.clone();
        (store, move || !foreseen.is_empty())
    })
    .await;
}
