//! Shutdown: accepted messages are executed, or answered with an error.

use factum_runtime::{AskError, EntityError};
use factum_testing::Fault;

use crate::{
    bench::{Bench, millis, options},
    counter::{Counter, CounterCommand},
};

#[tokio::test]
async fn what_was_accepted_is_done_and_what_comes_later_is_refused() {
    let bench = Bench::new();
    let counters = bench.entities::<Counter>(options());
    for n in 0..100 {
        counters.tell((n % 10).to_string(), CounterCommand::Add).unwrap();
    }
    let left = counters.shutdown(millis(1_000)).await;
    assert_eq!((left.unfinished.len(), left.refused), (0, 0));
    assert_eq!(bench.history.check_store(&*bench.store).await.unwrap().events, 100);
    let refused = counters.ask("1", CounterCommand::Add).await;
    assert!(matches!(refused, Err(AskError::Failed(EntityError::Closed(_)))), "{refused:?}");
}

#[tokio::test]
async fn what_is_not_done_in_time_is_told() {
    let bench = Bench::new();
    let counters = bench.entities::<Counter>(options());
    bench.faulty.next_append(Fault::Delay(millis(60_000)));
    counters.tell("slow", CounterCommand::Add).unwrap();
    bench.clock.until_sleeping(1).await;
    let waiting = tokio::spawn({
        let counters = counters.clone();
        async move { counters.ask("slow", CounterCommand::Add).await }
    });
    while counters.entity("slow").unwrap().is_none_or(|it| it.queued == 0) {
        tokio::task::yield_now().await;
    }
    let ending = tokio::spawn({
        let counters = counters.clone();
        async move { counters.shutdown(millis(1_000)).await }
    });
    bench.clock.until_sleeping(2).await;
    bench.clock.advance(millis(1_000));
    let left = ending.await.unwrap();
    assert_eq!((left.unfinished.len(), left.refused), (1, 1));
    let refused = waiting.await.unwrap();
    assert!(matches!(refused, Err(AskError::Failed(EntityError::Closed(_)))), "{refused:?}");
}
