//! Consumers log their failures, for operators who don't read the health.

use std::{
    fmt::Write,
    sync::{Arc, Mutex, atomic::Ordering},
};

use tracing::{Event, Level, Subscriber, field};
use tracing_subscriber::{Layer, Registry, layer::Context, prelude::*};

use crate::bench::{Bench, Fails, LONG, counts_in_memory, options};
use factum_projection::Projections;

/// The logged lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<(Level, String)>>>);

impl Lines {
    pub(crate) fn has(&self, level: Level, parts: &[&str]) -> bool {
        let lines = self.0.lock().unwrap();
        let is_it = |line: &str| parts.iter().all(|part| line.contains(part));
        lines.iter().any(|(at, line)| *at == level && is_it(line))
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = String::new();
        event.record(&mut |field: &field::Field, value: &dyn std::fmt::Debug| {
            write!(line, "{field}={value:?} ").unwrap();
        });
        self.0.lock().unwrap().push((*event.metadata().level(), line));
    }
}

/// A stopped consumer used to show only in its health.
#[tokio::test]
async fn parking_retries_and_stops_are_logged() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(Registry::default().with(lines.clone()));
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposit("ada", 13).await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    let counts = bench.count(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert!(lines.has(Level::WARN, &["counts@1", "tries again", "thirteen", "attempts=1"]));
    assert!(lines.has(Level::WARN, &["counts@1", "was parked", "account-ada", "position=2"]));
    assert_eq!(counts.stop().await, factum_consumer::StopReason::Asked);
    let mut strict = options();
    strict.failure = strict.failure.then_stop();
    let fold = counts_in_memory(&fails).with_options(strict);
    let counts = bench.consumers.fold(fold).await.unwrap();
    counts.wait_for(bench.head(), LONG).await.unwrap_err();
    assert!(lines.has(Level::ERROR, &["counts-in-memory@1", "has stopped", "thirteen"]));
    let errors = lines.0.lock().unwrap().iter().filter(|(at, _)| *at == Level::ERROR).count();
    assert_eq!(errors, 1, "a stop that was asked for is no error");
}
