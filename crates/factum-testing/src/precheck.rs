//! A test of a store's precheck of conditions, seen from inside the store.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use factum_kernel::{
    AppendBatch, AppendCondition, Clock, Content, EventId, EventName, EventStore, ExpectedVersion,
    IdSource, NewEvent, Position, Query, StreamId, SystemClock, SystemIds, Tag,
};

/// Checks that a store prechecks a condition that reaches far back before it queues the batch, so
/// that other appends don't wait. Also checks that the store leaves a condition that reaches back a
/// little to its writer, and that it keeps nothing after the answer.
///
/// `open` opens the store with a delay before each commit. The second value that it returns tells
/// whether the store holds a prechecked condition of a batch under way.
///
/// # Panics
/// If the store does otherwise.
pub async fn assert_prechecks<S: EventStore, F: Fn() -> bool + Send + Sync + 'static>(
    open: impl AsyncFnOnce(Arc<dyn Fn() -> Duration + Send + Sync>) -> (S, F),
) {
    let known = Arc::new(OnceLock::<F>::new());
    // The state that the writer finds after it has planned a group.
    let seen = Arc::new(Mutex::new(None));
    let note = {
        let known = known.clone();
        let seen = seen.clone();
        move || {
            let is_prechecked = known.get().is_some_and(|prechecks| prechecks());
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(is_prechecked);
            Duration::ZERO
        }
    };
    let (store, prechecks) = open(Arc::new(note)).await;
    let prechecks = known.get_or_init(|| prechecks);
    store.append(batch(2_000)).await.expect("the store takes a long batch");
    for (after, is_prechecked) in [(1_999, false), (0, true)] {
        let fail_if_events_match = Query::tag(Tag::new("n", 1).expect("a valid tag"));
        let condition = AppendCondition { fail_if_events_match, after: Position::new(after) };
        store.append(batch(1).unless(condition)).await.expect("nothing matches");
        let found = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        assert_eq!(found, Some(is_prechecked), "what is known of a condition after {after}");
        assert!(!prechecks(), "something is kept when it is answered");
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
