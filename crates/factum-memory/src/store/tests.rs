use std::{
    sync::{Mutex, OnceLock},
    time::Duration,
};

use factum_backend::CommitDelay;
use factum_core::{
    AppendCondition, Content, EventId, EventName, ExpectedVersion, IdSource, NewEvent, Query,
    SystemIds, Tag, Timestamp,
};

use super::*;

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
        let is_foreseen = known_.get().is_some_and(|it: &Arc<Foreseen>| !it.is_empty());
        seen_.lock().unwrap().push(is_foreseen);
        Duration::ZERO
    });
    let store = MemoryStore::with_options(MemoryOptions {
        commit_delay: Some(note),
        ..MemoryOptions::new()
    });
    known.set(store.foreseen.clone()).unwrap();
    store.append(batch(2_000)).await.unwrap();
    for (after, is_foreseen) in [(1_999, false), (0, true)] {
        let fail_if_events_match = Query::tag(Tag::new("n", 1).unwrap());
        let condition = AppendCondition { fail_if_events_match, after: Position::new(after) };
        store.append(batch(1).unless(condition)).await.unwrap();
        assert_eq!(seen.lock().unwrap().pop(), Some(is_foreseen), "behind {after}");
        assert!(store.foreseen.is_empty(), "nothing is kept when it is answered");
    }
    store.close().await.unwrap();
}
