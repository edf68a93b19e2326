//! Outages in the errors of other libraries.

use std::{
    error::Error,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_consumer::{Consumer, ConsumerOptions, ConsumerState, FailurePolicy};
use factum_testing::bank::AccountEvent;

use crate::bench::{Bench, LONG};

fn is_unreachable(link: &(dyn Error + 'static)) -> bool {
    let error = link.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::HostUnreachable)
}

/// The user's own error may hide the other library's error.
#[tokio::test]
async fn an_error_that_the_program_declares_an_outage_parks_no_event() {
    #[derive(Debug, thiserror::Error)]
    #[error("the mail was not sent")]
    struct Unsent(#[from] io::Error);

    let mut bench = Bench::new();
    bench.consumers = bench.consumers.clone().with_outages(is_unreachable);
    bench.open("ada").await;
    let is_away = Arc::new(AtomicBool::new(true));
    let away = is_away.clone();
    let mails = Consumer::new("mails", move |_: AccountEvent, _| {
        let is_away = away.load(Ordering::SeqCst);
        let sent = if is_away { Err(io::ErrorKind::HostUnreachable.into()) } else { Ok(()) };
        async move { Ok(sent.map_err(Unsent)?) }
    });
    // Without retries, one failure that counts against the event would park it.
    let pause = Duration::from_millis(1);
    let failure = FailurePolicy::new().with_retries_max(0).with_pause(pause, pause);
    let mails = mails.with_options(ConsumerOptions::new().with_failure(failure));
    let mails = bench.consumers.start(mails).await.unwrap();
    let is_over = |state: &ConsumerState| match state {
        ConsumerState::Retrying { position: None, attempts, .. } => *attempts >= 5,
        ConsumerState::Live => true,
        _ => false,
    };
    mails.watch().wait_for(|it| is_over(&it.state)).await.unwrap();
    is_away.store(false, Ordering::SeqCst);
    mails.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(mails.dead_letters().await, []);
}
