//! What a consumer says of itself.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use factum_core::{Kernel, RecordedEvent, TagKey};
use factum_memory::{MemoryOptions, MemoryStore};
use factum_projection::{
    ConsumerHealth, ConsumerName, ConsumerState, Fence, HandleError, Opened, Projection, Save,
    StopReason, Target, TargetError,
};
use factum_testing::{VirtualClock, bank::AccountEvent};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::bench::{Bench, Fails, LONG, options};

/// A target with a defect.
#[derive(Default)]
struct Bomb(Mutex<Opened>);

impl Target for Bomb {
    type Tx = ();

    async fn open(&self, _: &ConsumerName) -> Result<Opened, TargetError> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn begin(&self, _: &ConsumerName) -> Result<(), TargetError> {
        Ok(())
    }

    async fn commit(&self, _: &ConsumerName, (): (), save: Save) -> Result<Fence, TargetError> {
        assert_eq!(save.events, 0, "a defect");
        self.0.lock().unwrap().progress = Some(save.progress);
        Ok(save.expected)
    }

    async fn clear(&self, _: &ConsumerName) -> Result<(), TargetError> {
        Ok(())
    }
}

struct Defect;

impl Projection for Defect {
    const NAME: &'static str = "defect";
    type Event = AccountEvent;
    type Target = Bomb;

    async fn project(
        &self,
        _: AccountEvent,
        _: &RecordedEvent,
        (): &mut (),
    ) -> Result<(), HandleError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_consumer_whose_target_panics_does_not_stop_quietly() {
    let bench = Bench::new();
    let defect = bench.consumers.project(Defect, Bomb::default(), options()).unwrap();
    bench.open("ada").await;
    let told = defect.wait_for(bench.head(), LONG).await.unwrap_err();
    assert!(told.to_string().contains("panicked: assertion"), "{told}");
    assert!(matches!(defect.health().state, ConsumerState::Stopped(StopReason::Broken(_))));
    // The name is free again.
    bench.consumers.project(Defect, Bomb::default(), options()).unwrap();
}

#[tokio::test]
async fn the_lag_of_a_consumer_that_waits_grows_with_time() {
    let clock = VirtualClock::new("2026-03-01T09:00:00Z".parse().unwrap());
    let options_of_store = MemoryOptions::new().with_clock(Arc::new(clock.clone()));
    let store = Arc::new(MemoryStore::with_options(options_of_store));
    let kernel = Kernel::new(store.clone(), store).with_clock(Arc::new(clock.clone()));
    let bench = Bench::on(kernel.with_tag_key(TagKey::new([1; 32])));
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    let counts = bench.count(&fails);
    bench.open("ada").await;
    clock.advance(Duration::from_secs(60));
    let position = bench.deposit("ada", 13).await;
    let mut health = counts.watch();
    let is_retrying = |it: &ConsumerHealth| {
        let ConsumerState::Retrying { position: at, .. } = it.state else { return false };
        at == Some(position)
    };
    health.wait_for(is_retrying).await.unwrap();
    assert_eq!(counts.health().lag, Some(Duration::ZERO));
    assert_eq!(counts.health().lag_events(), 1);
    // Less than the pause, for nobody's clock but the handle's.
    clock.advance(Duration::from_micros(300));
    assert_eq!(counts.health().lag, Some(Duration::from_micros(300)));
}

#[tokio::test]
async fn metrics_say_what_health_says() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let told = recorder.handle();
    let bench = Bench::new();
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    // A consumer tells the recorder that is there when it starts.
    let counts = metrics::with_local_recorder(&recorder, || bench.count(&fails));
    bench.open("ada").await;
    bench.deposit("ada", 13).await;
    bench.deposit("ada", 14).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    // What is told is told before anybody is woken.
    let says = |line: &str| {
        let told = told.render();
        assert!(told.lines().any(|it| it == line), "{line} is not in:\n{told}");
    };
    says(r#"factum_consumer_events_total{consumer="counts@1"} 1"#);
    says(r#"factum_consumer_failures_total{consumer="counts@1"} 3"#);
    says(r#"factum_consumer_position{consumer="counts@1"} 3"#);
    says(r#"factum_consumer_lag_events{consumer="counts@1"} 0"#);
    says(r#"factum_consumer_parked{consumer="counts@1"} 1"#);
    assert_eq!(counts.stop().await, StopReason::Asked);
    says(r#"factum_consumer_state{consumer="counts@1",state="stopped"} 1"#);
    says(r#"factum_consumer_state{consumer="counts@1",state="live"} 0"#);
}
