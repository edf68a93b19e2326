//! Streams to states: as they are, as they were, and where history is gone.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use factum_kernel::{
    Aggregate, AppendBatch, At, Clock, Context, EventId, EventStore, ExecuteError, ExpectedVersion,
    Json, LoadError, ReadQuery, Repository, Retention, StreamChange, StreamVersion, Verdict,
    encode_event,
};
use factum_testing::bank::{Account, AccountCommand, AccountEvent};

use factum_macros::Event;

use crate::{
    bench::{Bench, at, no_metadata, stream},
    meddled::{Meddler, meddled},
};

const HOUR: Duration = Duration::from_secs(3_600);

async fn balance_at(bench: &Bench, at: At) -> Result<(u64, u64), LoadError> {
    let loaded = bench.accounts().load_at("ada", at).await?;
    Ok((loaded.state.balance_cents, loaded.version.value()))
}

fn version(version: u64) -> At {
    At::Version(StreamVersion::new(version))
}

#[tokio::test]
async fn what_never_was_loads_as_the_default_at_version_zero() {
    let loaded = Bench::new().accounts().load("ada").await.unwrap();
    assert_eq!((loaded.state, loaded.version.value()), (Account::default(), 0));
}

#[tokio::test]
async fn a_state_loads_as_of_a_version_or_a_time() {
    let bench = Bench::new();
    bench.open("ada", &[]).await;
    for cents in [1, 10, 100] {
        bench.clock.sleep(HOUR).await;
        bench.deposit("ada", &[cents]).await;
    }
    assert_eq!(balance_at(&bench, version(0)).await.unwrap(), (0, 0));
    assert_eq!(balance_at(&bench, version(3)).await.unwrap(), (11, 3));
    assert_eq!(balance_at(&bench, version(99)).await.unwrap(), (111, 4));
    assert_eq!(balance_at(&bench, At::Time(at("07:59:59"))).await.unwrap(), (0, 0));
    assert_eq!(balance_at(&bench, At::Time(at("09:00:00"))).await.unwrap(), (1, 2));
    assert_eq!(balance_at(&bench, At::Time(at("10:59:59"))).await.unwrap(), (11, 3));
    assert_eq!(balance_at(&bench, At::Latest).await.unwrap(), (111, 4));
}

#[tokio::test]
async fn a_long_stream_loads_over_many_pages() {
    let bench = Bench::new();
    bench.open("ada", &vec![1; 2_500]).await;
    assert_eq!(bench.balance("ada").await, (2_500, 2_501));
    let history = bench.accounts().history("ada").unwrap().collect().await.unwrap();
    let versions: Vec<_> = history.iter().map(|entry| entry.recorded.version().value()).collect();
    assert_eq!(versions, (1..=2_501).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_partial_history_is_never_folded() {
    let bench = Bench::new();
    bench.open("ada", &[1, 10, 100]).await;
    let before = StreamChange::TruncateBefore(StreamVersion::new(3));
    bench.store.change(&stream("ada"), before).await.unwrap();
    let refused = bench.accounts().load("ada").await.unwrap_err();
    assert!(matches!(refused, LoadError::Truncated { .. }), "{refused}");
    let refused = bench.accounts().execute("ada", &AccountCommand::Deposit { cents: 1 }).await;
    assert!(refused.is_err(), "and nothing is decided on it");
}

#[tokio::test]
async fn history_may_go_behind_a_summary() {
    let bench = Bench::new();
    bench.open("ada", &[1, 10]).await;
    bench.clock.sleep(HOUR).await;
    let info = bench.accounts().summarise("ada", &no_metadata()).await.unwrap();
    assert_eq!(info.bounds.erased_through, StreamVersion::new(3));
    assert_eq!(bench.balance("ada").await, (11, 4));
    bench.deposit("ada", &[100]).await;
    assert_eq!(bench.balance("ada").await, (111, 5));
    assert_eq!(balance_at(&bench, version(4)).await.unwrap(), (11, 4));
    for gone in [version(3), At::Time(at("08:30:00"))] {
        let refused = balance_at(&bench, gone).await.unwrap_err();
        assert!(matches!(refused, LoadError::Truncated { .. }), "{gone:?}: {refused}");
    }
    let log = bench.store.read(ReadQuery::log()).await.unwrap();
    assert_eq!(log.erased.len(), 1, "positions 1 to 3 are one range");
}

#[tokio::test]
async fn loading_starts_at_a_later_summary_where_the_cut_was_before_it() {
    let bench = Bench::new();
    bench.open("ada", &[1, 10]).await;
    bench.accounts().summarise("ada", &no_metadata()).await.unwrap();
    bench.deposit("ada", &[100]).await;
    bench.accounts().summarise("ada", &no_metadata()).await.unwrap();
    bench.deposit("ada", &[1_000]).await;
    assert_eq!(bench.balance("ada").await, (1_111, 7));

    let plain = Bench::new();
    plain.open("ada", &[1, 10]).await;
    // Somebody keeps a number of events that reaches back behind the summary.
    plain.accounts().summarise("ada", &no_metadata()).await.unwrap();
    plain.deposit("ada", &[100]).await;
    let keep = Retention { events_max: Some(1), age_max: None };
    plain.store.change(&stream("ada"), StreamChange::Retain(keep)).await.unwrap();
    assert!(matches!(plain.accounts().load("ada").await, Err(LoadError::Truncated { .. })));
}

#[tokio::test]
async fn a_summary_replaces_what_was_folded_before_it() {
    let bench = Bench::new();
    bench.open("ada", &[5]).await;
    // The summary is in the stream, but the history before it is still there too.
    let keep = Retention { events_max: Some(100), age_max: None };
    bench.store.change(&stream("ada"), StreamChange::Retain(keep)).await.unwrap();
    bench.accounts().summarise("ada", &no_metadata()).await.unwrap();
    assert_eq!(bench.balance("ada").await, (5, 3));
}

#[tokio::test]
async fn what_was_deleted_begins_anew() {
    let bench = Bench::new();
    bench.open("ada", &[500]).await;
    bench.clock.sleep(HOUR).await;
    let deleted = bench.accounts().delete("ada", ExpectedVersion::Any).await.unwrap();
    let loaded = bench.accounts().load("ada").await.unwrap();
    assert_eq!((&loaded.state, loaded.version), (&Account::default(), deleted.version));
    assert_eq!(Some(loaded.position), deleted.position);
    let times = [("08:30:00", None), ("09:30:00", Some(deleted.version.value()))];
    for (time, version) in times {
        let found = balance_at(&bench, At::Time(at(time))).await;
        assert_eq!(found.ok().map(|it| it.1), version, "at {time}");
    }

    let reopened = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    let done = bench.accounts().execute("ada", &reopened).await.unwrap();
    assert_eq!(done.version, deleted.version.next());
    bench.deposit("ada", &[7]).await;
    assert_eq!(bench.balance("ada").await.0, 7);
    assert_eq!(balance_at(&bench, At::Version(deleted.version)).await.unwrap().0, 0);
    let gone = balance_at(&bench, version(1)).await.unwrap_err();
    assert!(matches!(gone, LoadError::Truncated { .. }), "{gone}");
}

#[tokio::test]
async fn a_writer_that_loaded_before_a_deletion_conflicts() {
    let bench = Bench::new();
    bench.open("ada", &[500]).await;
    let seen = bench.accounts().load("ada").await.unwrap().version;
    bench.accounts().delete("ada", ExpectedVersion::Exact(seen)).await.unwrap();
    let now = bench.store.stream_info(&stream("ada")).await.unwrap().bounds;
    assert!(!now.matches(ExpectedVersion::Exact(seen)), "what was decided on is gone");
}

/// Others counted versions in 16 bits: after 65,535 events the aggregate was over.
#[tokio::test]
async fn a_stream_goes_on_behind_65_535_events() {
    let bench = Bench::new();
    bench.open("ada", &[]).await;
    let deposit = AccountEvent::Deposited { cents: 1 };
    for batch in 0..70 {
        let event = |number: u32| {
            let id = EventId::derived(at("08:00:00"), &(batch * 1_000 + number).to_le_bytes());
            encode_event(&deposit, id, &no_metadata(), None).unwrap()
        };
        let version = StreamVersion::new(u64::from(batch) * 1_000 + 1);
        let batch = AppendBatch::new().write(stream("ada"), version, (0..1_000).map(event));
        bench.store.append(batch).await.unwrap();
    }
    assert_eq!(bench.balance("ada").await, (70_000, 70_001));
    assert_eq!(balance_at(&bench, version(65_536)).await.unwrap(), (65_535, 65_536));
}

/// Somebody summarises the account between two pages of a load.
struct Summariser(Arc<Bench>);

#[async_trait]
impl Meddler for Summariser {
    async fn before_read(&self, nth: usize) {
        if nth == 1 {
            self.0.accounts().summarise("ada", &no_metadata()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn history_that_goes_during_a_load_is_noticed() {
    // A page holds a thousand events, so that the second begins behind version 1,000.
    for (wanted, expected) in [
        (At::Latest, Some((1_500, 1_502))),
        (version(1_502), Some((1_500, 1_502))),
        (version(1_200), None),
        (At::Time(at("08:00:00")), None),
    ] {
        let bench = Arc::new(Bench::new());
        bench.open("ada", &vec![1; 1_499]).await;
        bench.clock.sleep(HOUR).await;
        bench.deposit("ada", &[1]).await;
        let store = meddled(bench.store.clone(), Summariser(bench.clone()));
        let accounts = Repository::<Account>::new(bench.kernel.clone().with_events(store));
        let loaded = accounts.load_at("ada", wanted).await;
        let seen = loaded.map(|loaded| (loaded.state.balance_cents, loaded.version.value()));
        match (seen, expected) {
            (Err(LoadError::Truncated { .. }), None) => {}
            (seen, expected) => assert_eq!(seen.ok(), expected, "{wanted:?}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Event)]
#[event(crate = factum_kernel, prefix = "counter", codec = Json)]
enum CounterEvent {
    Counted { by: f64 },
    Totalled { sum: f64 },
}

#[derive(Debug, Default)]
struct Counter {
    sum: f64,
}

impl Aggregate for Counter {
    const CATEGORY: &'static str = "counter";
    type Command = f64;
    type Event = CounterEvent;
    type Rejection = std::fmt::Error;

    fn decide(&self, by: &f64, _: &Context<'_>) -> Verdict<Self> {
        Ok([CounterEvent::Counted { by: *by }].into())
    }

    fn evolve(&mut self, event: &CounterEvent) {
        match event {
            CounterEvent::Counted { by } => self.sum += by,
            CounterEvent::Totalled { sum } => self.sum = *sum,
        }
    }

    fn summary(&self) -> Option<CounterEvent> {
        Some(CounterEvent::Totalled { sum: self.sum })
    }
}

#[tokio::test]
async fn what_would_not_read_back_is_not_stored() {
    let bench = Bench::new();
    let counters = Repository::<Counter>::new(bench.kernel.clone());
    counters.execute("c", &1.5).await.unwrap();
    // JSON has no such number: it is written as null, and null is no number.
    let refused = counters.execute("c", &f64::NAN).await;
    assert!(matches!(refused, Err(ExecuteError::Encode(_))), "{refused:?}");
    assert_eq!(counters.load("c").await.unwrap().state.sum, 1.5);
}

#[tokio::test]
async fn a_summary_that_is_not_marked_erases_nothing() {
    let bench = Bench::new();
    let counters = Repository::<Counter>::new(bench.kernel.clone());
    counters.execute("c", &1.5).await.unwrap();
    let refused = counters.summarise("c", &no_metadata()).await.unwrap_err();
    assert!(refused.to_string().contains("not marked #[event(summary)]"), "{refused}");
    assert_eq!(counters.load("c").await.unwrap().version, StreamVersion::new(1));
}
