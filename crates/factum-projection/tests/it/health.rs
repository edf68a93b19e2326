//! The health that a consumer reports.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_consumer::{
    ConsumerHealth, ConsumerName, ConsumerState, Fence, HandleError, Opened, Save, StopReason,
    Target, TargetError,
};
use factum_kernel::{Clock, Kernel, RecordedEvent, TagKey};
use factum_memory::{MemoryOptions, MemoryStore};
use factum_projection::{Projection, Projections};
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
        Ok(Fence(save.expected.0 + 1))
    }

    async fn clear(&self, _: &ConsumerName) -> Result<(), TargetError> {
        Ok(())
    }
}

struct Defect;

impl Projection for Defect {
    const NAME: &'static str = "defect";
    const CATEGORIES: &[&str] = &["account"];
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

    async fn forget(&self, _: &RecordedEvent, (): &mut ()) -> Result<(), HandleError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_consumer_whose_target_panics_does_not_stop_quietly() {
    let bench = Bench::new();
    let defect =
        bench.consumers.start_projection(Defect, Bomb::default(), options()).await.unwrap();
    bench.open("ada").await;
    let told = defect.wait_for(bench.head(), LONG).await.unwrap_err();
    assert!(factum_kernel::sentence(&told).contains("panicked: assertion"), "{told}");
    assert!(matches!(defect.health().state, ConsumerState::Stopped(StopReason::Broken(_))));
    // The name can be used again.
    bench.consumers.start_projection(Defect, Bomb::default(), options()).await.unwrap();
}

/// A target with one call that never answers, once that is switched on.
#[derive(Default)]
struct Silent {
    inner: Mutex<Opened>,
    call: &'static str,
    is_silent: Arc<AtomicBool>,
}

impl Silent {
    async fn answer(&self, call: &str) {
        if self.call == call && self.is_silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    fn store(&self, save: Save) -> Fence {
        let mut inner = self.inner.lock().unwrap();
        inner.progress = Some(save.progress);
        inner.fence = Fence(save.expected.0 + 1);
        inner.fence
    }
}

impl Target for Silent {
    type Tx = ();

    async fn open(&self, _: &ConsumerName) -> Result<Opened, TargetError> {
        self.answer("open").await;
        Ok(self.inner.lock().unwrap().clone())
    }

    async fn begin(&self, _: &ConsumerName) -> Result<(), TargetError> {
        self.answer("begin").await;
        Ok(())
    }

    async fn commit(&self, _: &ConsumerName, (): (), save: Save) -> Result<Fence, TargetError> {
        self.answer("commit").await;
        Ok(self.store(save))
    }

    async fn save(&self, _: &ConsumerName, save: Save) -> Result<Fence, TargetError> {
        self.answer("save").await;
        Ok(self.store(save))
    }

    async fn clear(&self, _: &ConsumerName) -> Result<(), TargetError> {
        Ok(())
    }
}

struct Quiet;

impl Projection for Quiet {
    const NAME: &'static str = "quiet";
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = Silent;

    async fn project(
        &self,
        _: AccountEvent,
        _: &RecordedEvent,
        (): &mut (),
    ) -> Result<(), HandleError> {
        Ok(())
    }

    async fn forget(&self, _: &RecordedEvent, (): &mut ()) -> Result<(), HandleError> {
        Ok(())
    }
}

/// Moves the clock until a future ends.
async fn as_time_passes<T>(clock: &VirtualClock, future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut passed = Duration::ZERO;
    loop {
        let turn = async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            done = &mut future => return done,
            () = turn => {
                clock.advance(Duration::from_millis(100));
                passed += Duration::from_millis(100);
                assert!(passed < 6 * LONG, "it does not end by itself");
            }
        }
    }
}

#[tokio::test]
async fn a_target_that_never_answers_shows_in_health_and_the_consumer_can_be_stopped() {
    for call in ["open", "begin", "commit", "save"] {
        let clock = VirtualClock::new("2026-03-01T09:00:00Z".parse().unwrap());
        let store = Arc::new(MemoryStore::new());
        let kernel = Kernel::new(store.clone(), store).with_clock(Arc::new(clock.clone()));
        let bench = Bench::on(kernel.with_tag_key(TagKey::new([1; 32])));
        let silent = Silent { call, ..Silent::default() };
        let is_silent = silent.is_silent.clone();
        is_silent.store(call == "open", Ordering::SeqCst);
        let quiet = bench.consumers.start_projection(Quiet, silent, options()).await.unwrap();
        bench.open("ada").await;
        if call != "open" {
            quiet.wait_for(bench.head(), LONG).await.unwrap();
        }
        is_silent.store(true, Ordering::SeqCst);
        let since = clock.now();
        bench.open("bob").await;
        if ["begin", "commit"].contains(&call) {
            let mut health = quiet.watch();
            let is_committing = |it: &ConsumerHealth| it.committing_since.is_some();
            let seen = health.wait_for(is_committing);
            let seen = as_time_passes(&clock, seen).await.unwrap().committing_since;
            assert_eq!((seen, quiet.health().committing_since), (Some(since), Some(since)));
        }
        as_time_passes(&clock, bench.consumers.close()).await;
        let health = quiet.health();
        assert_eq!(health.state, ConsumerState::Stopped(StopReason::Asked), "{call}");
        assert_eq!(health.committing_since, None);
    }
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
    let counts = bench.count(&fails).await;
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
    assert_eq!(counts.health().lag_events(), Some(1));
    // Less than the pause: only the handle's clock moves.
    clock.advance(Duration::from_micros(300));
    assert_eq!(counts.health().lag, Some(Duration::from_micros(300)));
}

#[tokio::test]
async fn metrics_show_the_same_as_health() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let told = recorder.handle();
    let bench = Bench::new();
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    // A consumer reports to the recorder that is set when it starts.
    let counts = {
        let _recorder = metrics::set_default_local_recorder(&recorder);
        bench.count(&fails).await
    };
    bench.open("ada").await;
    bench.deposit("ada", 13).await;
    bench.deposit("ada", 14).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    // Metrics are recorded before a waiting caller is woken.
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
    // A consumer that has stopped learns of nothing more.
    says(r#"factum_consumer_lag_events{consumer="counts@1"} NaN"#);
    says(r#"factum_consumer_lag_seconds{consumer="counts@1"} NaN"#);
}
