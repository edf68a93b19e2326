use factum_testing::assert_prechecks;

use super::*;

/// All other appends once waited while the writer checked the conditions.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_on_what_is_far_back_are_looked_at_before_their_batch_is_queued() {
    assert_prechecks(async |delay| {
        let store = MemoryStore::with_options(MemoryOptions::new().with_commit_delay(delay));
        let prechecks = store.prechecks.clone();
        (store, move || !prechecks.is_empty())
    })
    .await;
}
