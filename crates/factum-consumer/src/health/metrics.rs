//! The metrics of consumers, recorded through the `metrics` facade.

use std::fmt;

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use super::{ConsumerHealth, ConsumerState};
use crate::name::ConsumerName;

const HANDLED: &str = "factum_consumer_events_total";
const FAILURES: &str = "factum_consumer_failures_total";
const POSITION: &str = "factum_consumer_position";
const LAG_EVENTS: &str = "factum_consumer_lag_events";
const LAG_SECONDS: &str = "factum_consumer_lag_seconds";
const PARKED: &str = "factum_consumer_parked";
const WAITING: &str = "factum_consumer_waiting";
const STATE: &str = "factum_consumer_state";
const STATES: [&str; 8] =
    ["starting", "catching-up", "live", "waiting", "retrying", "paused", "standing-by", "stopped"];

/// Describes the metrics of consumers to the recorder of the `metrics` facade. Consumers record
/// them in any case; this call adds units and descriptions. Install the recorder before consumers
/// start.
///
/// | name | kind | unit | labels |
/// |---|---|---|---|
/// | `factum_consumer_events_total` | counter | events handled | `consumer` |
/// | `factum_consumer_failures_total` | counter | attempts that failed | `consumer` |
/// | `factum_consumer_position` | gauge | position | `consumer` |
/// | `factum_consumer_lag_events` | gauge | positions behind the log's head | `consumer` |
/// | `factum_consumer_lag_seconds` | gauge | age of the next event to be handled | `consumer` |
/// | `factum_consumer_parked` | gauge | streams that wait for a parked event | `consumer` |
/// | `factum_consumer_waiting` | gauge | streams that this program can't read | `consumer` |
/// | `factum_consumer_state` | gauge | 1 for the current state | `consumer`, `state` |
///
/// `consumer` is the consumer's name, which includes the build of a projection. `state` is one of
/// `starting`, `catching-up`, `live`, `waiting`, `retrying`, `paused`, `standing-by`, `stopped`.
/// The gauges cover the partitions that this process works on. They are set when a batch ends, an
/// attempt fails or the state changes; a handler that hangs becomes visible after its timeout. The
/// lag of a consumer that has stopped is `NaN` where it is unknown, and never 0.
///
/// ```
/// # use factum_kernel::{Kernel, TagKey};
/// # use factum_consumer::{Consumer, Consumers, HandleError, describe_consumer_metrics};
/// # use factum_testing::bank::AccountEvent;
/// use metrics_exporter_prometheus::PrometheusBuilder;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = Kernel::new(store.clone(), store).with_tag_key(TagKey::new([1; 32]));
/// let prometheus = PrometheusBuilder::new().install_recorder()?;
/// describe_consumer_metrics();
/// # let handler = |_: AccountEvent, _| async { Ok::<(), HandleError>(()) };
/// let mails = Consumers::new(kernel).start(Consumer::new("mails", handler)).await?;
/// mails.stop().await;
/// let state = r#"factum_consumer_state{consumer="mails",state="stopped"} 1"#;
/// assert!(prometheus.render().contains(state));
/// # Ok(()) }
/// ```
pub fn describe_consumer_metrics() {
    describe_counter!(HANDLED, Unit::Count, "events handled");
    describe_counter!(FAILURES, Unit::Count, "attempts at an event that failed");
    describe_gauge!(POSITION, Unit::Count, "every event up to here is handled, skipped or parked");
    describe_gauge!(LAG_EVENTS, Unit::Count, "positions behind the log's head");
    describe_gauge!(LAG_SECONDS, Unit::Seconds, "age of the next event to be handled");
    describe_gauge!(PARKED, Unit::Count, "streams that wait for a parked event");
    describe_gauge!(WAITING, Unit::Count, "streams that this program can't read");
    describe_gauge!(STATE, Unit::Count, "1 for the consumer's current state");
}

/// The metrics of one consumer.
pub(super) struct Metrics {
    handled: Counter,
    failures: Counter,
    position: Gauge,
    lag_events: Gauge,
    lag_seconds: Gauge,
    parked: Gauge,
    waiting: Gauge,
    states: [Gauge; 8],
}

impl Metrics {
    pub(super) fn of(name: &ConsumerName) -> Self {
        let counter = |of: &'static str| counter!(of, "consumer" => name.to_string());
        let gauge = |of: &'static str| gauge!(of, "consumer" => name.to_string());
        let states = STATES.map(|state| {
            gauge!(STATE, &[("consumer", name.to_string()), ("state", state.to_owned())])
        });
        Self {
            handled: counter(HANDLED),
            failures: counter(FAILURES),
            position: gauge(POSITION),
            lag_events: gauge(LAG_EVENTS),
            lag_seconds: gauge(LAG_SECONDS),
            parked: gauge(PARKED),
            waiting: gauge(WAITING),
            states,
        }
    }

    pub(super) fn record(&self, handled: u64, health: &ConsumerHealth) {
        self.handled.increment(handled);
        self.position.set(health.position.value() as f64);
        let events = health.lag_events();
        self.lag_events.set(events.map_or(f64::NAN, |events| events as f64));
        let seconds = health.lag.unwrap_or_default().as_secs_f64();
        let is_stopped = matches!(health.state, ConsumerState::Stopped(_));
        self.lag_seconds.set(if is_stopped { f64::NAN } else { seconds });
        self.parked.set(health.parked as f64);
        self.waiting.set(health.waiting as f64);
        let state = word(&health.state);
        for (gauge, each) in self.states.iter().zip(STATES) {
            gauge.set(f64::from(u8::from(each == state)));
        }
    }

    pub(super) fn record_failure(&self) {
        self.failures.increment(1);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn word(state: &ConsumerState) -> &'static str {
    match state {
        ConsumerState::Starting => "starting",
        ConsumerState::CatchingUp => "catching-up",
        ConsumerState::Live => "live",
        ConsumerState::Waiting => "waiting",
        ConsumerState::Retrying { .. } => "retrying",
        ConsumerState::Paused => "paused",
        ConsumerState::StandingBy => "standing-by",
        ConsumerState::Stopped(_) => "stopped",
    }
}
