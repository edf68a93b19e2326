use std::{
    cell::Cell,
    sync::{Mutex, OnceLock},
    time::Duration,
};

use factum_backend::CommitDelay;
use factum_core::{
    AppendCondition, Content, EventId, EventName, ExpectedVersion, IdSource, NewEvent, Query,
    SystemIds, Tag, Timestamp,
};

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

fn batch(events: usize) -> AppendBatch {
    let event = |_| {
        let id = EventId::new(SystemIds.uuid(Timestamp::EPOCH));
        NewEvent::new(id, EventName::from_static("it"), Content::Json, "")
    };
    let stream = StreamId::new("account", "ada").unwrap();
    AppendBatch::new().write(stream, ExpectedVersion::Any, (0..events).map(event))
}

/// All other appends waited while the writer looked at them.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_on_what_is_far_back_are_looked_at_before_their_batch_is_queued() {
    // What the writer finds when it has planned a group.
    let known = Arc::new(OnceLock::new());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let known_ = known.clone();
    let seen_ = seen.clone();
    let note: CommitDelay = Arc::new(move || {
        let is_foreseen = known_.get().is_some_and(|it: &Arc<Log>| !it.foreseen.is_empty());
        seen_.lock().unwrap().push(is_foreseen);
        Duration::ZERO
    });
    let folder = tempfile::tempdir().unwrap();
    let options = JournalOptions::new(folder.path()).with_commit_delay(note);
    let store = JournalStore::open(options).await.unwrap();
    known.set(store.inner.log.clone()).unwrap();
    store.append(batch(2_000)).await.unwrap();
    for (after, is_foreseen) in [(1_999, false), (0, true)] {
        let fail_if_events_match = Query::tag(Tag::new("n", 1).unwrap());
        let condition = AppendCondition { fail_if_events_match, after: Position::new(after) };
        store.append(batch(1).unless(condition)).await.unwrap();
        assert_eq!(seen.lock().unwrap().pop(), Some(is_foreseen), "behind {after}");
        assert!(store.inner.log.foreseen.is_empty(), "nothing is kept when it is answered");
    }
    store.close().await.unwrap();
}
