//! Conditions on what is far back are looked at before their batch is queued, and are as exact as
//! those that the writer looks at alone.

use factum_backend::FORESEEN_NEAR;
use factum_core::{
    AppendBatch, AppendCondition, AppendError, Content, EventName, EventStore, ExpectedVersion,
    NewEvent, Position, Query, StreamChange, StreamId, Tag,
};

use crate::fresh::{self, new_id};

fn tag(n: u64) -> Tag {
    Tag::new("email", n).unwrap()
}

fn event() -> NewEvent {
    NewEvent::new(new_id(), EventName::from_static("it"), Content::Json, "")
}

fn stream(key: &str) -> StreamId {
    StreamId::new("account", key).unwrap()
}

/// An event with a tag, unless there is one.
fn claim(key: &str, n: u64) -> AppendBatch {
    let fail_if_events_match = Query::tag(tag(n));
    AppendBatch::new()
        .write(stream(key), ExpectedVersion::Any, [event().with_tag(tag(n))])
        .unless(AppendCondition { fail_if_events_match, after: Position::ZERO })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_several_claims_wins_whenever_they_were_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let store = fresh::open(folder.path()).await;
    for _ in 0..=FORESEEN_NEAR / 1_000 {
        let many = (0..1_000).map(|_| event());
        let batch = AppendBatch::new().write(stream("many"), ExpectedVersion::Any, many);
        store.append(batch).await.unwrap();
    }
    for n in 0..20 {
        let claims: Vec<_> = (0..8)
            .map(|claimant| {
                let (store, key) = (store.clone(), format!("{n}-{claimant}"));
                tokio::spawn(async move { (store.append(claim(&key, n)).await, key) })
            })
            .collect();
        let mut winners = Vec::new();
        for claim in claims {
            match claim.await.unwrap() {
                (Ok(_), key) => winners.push(key),
                (Err(AppendError::ConditionFailed { condition: 0, .. }), _) => {}
                (Err(other), _) => panic!("{other:?}"),
            }
        }
        assert_eq!(winners.len(), 1, "{winners:?}");
        // What is erased is no match any more.
        let delete = StreamChange::Delete(ExpectedVersion::Any);
        store.change(&stream(&winners[0]), delete).await.unwrap();
        store.append(claim("again", n)).await.unwrap();
        let refused = store.append(claim("late", n)).await.unwrap_err();
        assert!(matches!(refused, AppendError::ConditionFailed { .. }), "{refused:?}");
    }
    store.close().await.unwrap();
}
