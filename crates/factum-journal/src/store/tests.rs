use std::cell::Cell;

use factum_testing::assert_prechecks;

use super::*;

#[tokio::test]
async fn what_was_left_out_meanwhile_is_looked_for_again_but_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let store = JournalStore::open(JournalOptions::new(folder.path())).await.unwrap();
    let looks = Cell::new(0);
    let look = |fails: usize| {
        looks.set(0);
        store.inner.look_at_log(|_| {
            looks.set(looks.get() + 1);
            if looks.get() <= fails { Err(error::left_out(1)) } else { Ok(()) }
        })
    };
    assert!(look(2).is_ok());
    assert_eq!(looks.get(), 3);
    assert!(error::is_left_out(&look(usize::MAX).unwrap_err()));
    assert_eq!(looks.get(), LOOKS_MAX + 1);
    store.close().await.unwrap();
}

/// All other appends once waited while the writer checked the conditions.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_on_what_is_far_back_are_looked_at_before_their_batch_is_queued() {
    let folder = tempfile::tempdir().unwrap();
    assert_prechecks(async |delay| {
        let options = JournalOptions::new(folder.path()).with_commit_delay(delay);
        let store = JournalStore::open(options).await.unwrap();
        let log = store.inner.log.clone();
        (store, move || !log.prechecks.is_empty())
    })
    .await;
}
