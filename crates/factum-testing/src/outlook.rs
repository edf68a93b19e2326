//! A look at conditions before their batch is queued, seen from inside of a store.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use factum_kernel::{
    AppendBatch, AppendCondition, Clock, Content, EventId, EventName, EventStore, ExpectedVersion,
    IdSource, NewEvent, Position, Query, StreamId, SystemClock, SystemIds, Tag,
};

/// Checks that a store looks at a condition on what is far back before it queues the batch, where
/// other appends don't wait for that; that it leaves a condition on what is near to its writer; and
/// that it keeps nothing when it has answered.
///
/// `open` opens the store with a wait before each commit that it must ask for. Its second answer
/// says whether the store knows something of a condition whose batch is under way.
///
/// # Panics
/// If the store does otherwise.
pub async fn assert_looks_ahead<S: EventStore, F: Fn() -> bool + Send + Sync + 'static>(
    open: impl AsyncFnOnce(Arc<dyn Fn() -> Duration + Send + Sync>) -> (S, F),
) {
    let known = Arc::new(OnceLock::<F>::new());
    // What the writer finds when it has planned a group.
    let seen = Arc::new(Mutex::new(None));
    let note = {
        let known = known.clone();
        let seen = seen.clone();
        move || {
            let is_foreseen = known.get().is_some_and(|foresees| foresees());
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(is_foreseen);
            Duration::ZERO
        }
    };
    let (store, foresees) = open(Arc::new(note)).await;
    let foresees = known.get_or_init(|| foresees);
    store.append(batch(2_000)).await.expect("the store takes a long batch");
    for (after, is_foreseen) in [(1_999, false), (0, true)] {
        let fail_if_events_match = Query::tag(Tag::new("n", 1).expect("a valid tag"));
        let condition = AppendCondition { fail_if_events_match, after: Position::new(after) };
        store.append(batch(1).unless(condition)).await.expect("nothing matches");
        let found = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        assert_eq!(found, Some(is_foreseen), "what is known of a condition after {after}");
        assert!(!foresees(), "something is kept when it is answered");
    }
    store.close().await.expect("the store closes");
}

fn batch(events: usize) -> AppendBatch {
    let event = |_| {
        let id = EventId::new(SystemIds.uuid(SystemClock.now()));
        NewEvent::new(id, EventName::from_static("it"), Content::Json, "")
    };
    let stream = StreamId::new("account", "ada").expect("a valid key");
    AppendBatch::new().write(stream, ExpectedVersion::Any, (0..events).map(event))
}
