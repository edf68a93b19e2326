//! The reasons why consumers have stopped.

use factum_consumer::{
    Consumer, ConsumerName, ConsumerOptions, ConsumerState, FailurePolicy, Fence, HandleError,
    Save, StopReason, Target, WaitError,
    part::{
        Checkpoints,
        progress::{Mark, Progress, encode},
    },
    stored_consumers,
};
use factum_kernel::{ErrorKind, StoreError, sentence};
use factum_testing::bank::AccountEvent;

use crate::bench::{Bench, LONG};

#[derive(Debug, thiserror::Error)]
#[error("the mail was not written")]
struct Unwritten {
    source: StoreError,
}

#[tokio::test]
async fn a_caller_finds_the_error_that_stopped_a_consumer_with_its_kind_and_its_sources() {
    let bench = Bench::new();
    bench.open("ada").await;
    let mails = Consumer::new("mails", |_: AccountEvent, _| async {
        let source = StoreError::invalid("the address is too long");
        Err(Unwritten { source }.into())
    });
    let failure = FailurePolicy::new().with_retries_max(0).then_stop();
    let mails = mails.with_options(ConsumerOptions::new().with_failure(failure));
    let mails = bench.consumers.start(mails).await.unwrap();
    let error = mails.wait_for(bench.head(), LONG).await.unwrap_err();
    let whole = "the mail was not written: the address is too long";
    assert!(sentence(&error).ends_with(whole), "{}", sentence(&error));
    let WaitError::Stopped { reason, .. } = error else { panic!("{error}") };
    assert_eq!(mails.health().state, ConsumerState::Stopped(reason.clone()));
    assert!(matches!(reason, StopReason::Failed { .. }), "{reason:?}");
    assert_eq!(sentence(&reason), format!("an event failed: position=1: {whole}"));
    assert_eq!(reason.kind(), ErrorKind::Invalid);
    let cause = reason.cause().unwrap();
    assert!(cause.error().is::<Unwritten>());
}

#[tokio::test]
async fn a_consumer_that_takes_care_after_an_unclean_stop_still_says_which_process_runs_it() {
    let bench = Bench::new();
    bench.open("ada").await;
    let documents = bench.kernel.documents();
    let died = Save {
        expected: Fence(0),
        progress: encode(&Progress::default()),
        mark: Some(encode(&Mark { at_work: Some(10), attempt: None })),
        letters: Vec::new(),
        events: 0,
    };
    let name = ConsumerName::new("mails").unwrap();
    Checkpoints::new(documents.clone()).save(&name, died).await.unwrap();
    let mails = Consumer::new("mails", |_: AccountEvent, _| async { Ok::<_, HandleError>(()) });
    let mails = bench.consumers.start(mails).await.unwrap();
    mails.wait_for(bench.head(), LONG).await.unwrap();
    let [stored] = &stored_consumers(&**documents).await.unwrap()[..] else {
        panic!("one is stored")
    };
    assert!(stored.is_at_work);
    assert_eq!(stored.process, Some(std::process::id()));
}
