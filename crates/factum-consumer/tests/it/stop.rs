//! The reasons why consumers have stopped.

use factum_consumer::{
    Consumer, ConsumerOptions, ConsumerState, FailurePolicy, StopReason, WaitError,
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
