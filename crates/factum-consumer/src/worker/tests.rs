//! The asserts of the loop about its progress and its pages.

use std::sync::Arc;

use factum_kernel::{
    AppendBatch, Checkpoint, Content, EventId, EventName, ExpectedVersion, Kernel, NewEvent, Scope,
    StreamId, Timestamp,
};
use factum_memory::MemoryStore;

use super::*;
use crate::{consumers::Consumers, health::Board};

/// A log of two events, and its consumers.
async fn consumers() -> Consumers {
    let store = Arc::new(MemoryStore::new());
    let kernel = Kernel::new(store.clone(), store);
    let event = |n: u8| {
        let id = EventId::derived(Timestamp::EPOCH, &[n]);
        NewEvent::new(id, EventName::from_static("a.b"), Content::Json, "{}")
    };
    let stream = StreamId::new("a", "1").unwrap();
    let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [event(1), event(2)]);
    kernel.events().append(batch).await.unwrap();
    Consumers::new(kernel)
}

fn source(consumers: &Consumers) -> Source {
    Source::new(
        consumers.reading(),
        Scope::Log,
        crate::source::PageMax { events: 100, bytes: 1 << 20 },
        Err(Position::ZERO),
    )
}

/// A life whose stored checkpoint is at its second event, and the progress at each event.
async fn life() -> (Life, [Progress; 2]) {
    let consumers = consumers().await;
    let mut source = source(&consumers);
    let chunk = source.next().await.unwrap().unwrap();
    let at = |n: usize| Progress {
        checkpoint: Some(chunk.checkpoint(&chunk.events()[n])),
        ..Progress::default()
    };
    let progress = [at(0), at(1)];
    let stored: Option<Checkpoint> = progress[1].checkpoint;
    let life = Life { fence: Fence(7), progress: progress[1], stored, source, pending: None };
    (life, progress)
}

#[tokio::test]
async fn a_save_holds_a_later_progress_and_expects_the_last_fence() {
    let (mut life, [before, after]) = life().await;
    assert_eq!(life.saving(&after).expected, Fence(7));
    (life.progress, life.stored) = (before, before.checkpoint);
    assert_eq!(life.saving(&after).progress, progress::encode(&after));
    life.saved(after, Fence(8));
    assert_eq!((life.saving(&after).expected, life.stored), (Fence(8), after.checkpoint));
}

#[tokio::test]
#[should_panic(expected = "a checkpoint goes back: from=2 to=1")]
async fn a_stored_checkpoint_never_goes_back() {
    let (life, [before, _]) = life().await;
    let _ = life.saving(&before);
}

#[tokio::test]
#[should_panic(expected = "batches follow each other without a hole")]
async fn a_batch_that_leaves_out_an_event_is_not_reported() {
    let consumers = consumers().await;
    let chunk = source(&consumers).next().await.unwrap().unwrap();
    let (_, rest) = chunk.split(1);
    let name = ConsumerName::new("mails").unwrap();
    let place = Board::new(&name, 1).place(0);
    place.report(consumers.kernel(), &rest.expect("the second event"), |_| {});
}
