//! The month through entities on a store that loses requests and replies, compared with what its
//! callers were told.

use factum::{App, RetryPolicy, store::Stores};
use factum_testing::{FaultRates, FaultyStore, History, RecordingStore};

use super::*;
use crate::demo::clock::BankClock;

/// The account's rules, the plan and the writers are the demo's own; only the store is worse.
async fn live_on_a_rough_store(store: &str, seed: u64) {
    let args = DemoArgs { store: store.into(), accounts: 10, commands: 400, seed, json: true };
    let place = Place::find(store).unwrap();
    let clock = Arc::new(BankClock::new("2026-03-01T08:00:00Z".parse().unwrap()));
    let Stores { events, documents } = place.open(Effect::Makes, clock.clone()).await.unwrap();
    let rates = FaultRates { fail_read: 0.05, ..FaultRates::rough() };
    let faulty = FaultyStore::new(events.clone(), seed, rates, Arc::new(SystemClock));
    let history = Arc::new(History::new());
    let recording = Arc::new(RecordingStore::new(Arc::new(faulty), history.clone()));

    let sound = Stores { events: events.clone(), documents: documents.clone() };
    let sound = Bank::on(sound, clock.clone(), App::builder()).await.unwrap();
    let mut patient = RetryPolicy::new().with_conflicts_max(1_000).with_repeats_max(100);
    patient.pause_max = patient.pause_min;
    let rough = Stores { events: recording, documents };
    let rough = Bank::on(rough, clock, App::builder().with_retry(patient)).await.unwrap();

    let work = |bank| Work { bank, interrupt: Interrupt::listen(), notes: Notes::None };
    let found = sound.look().await.unwrap();
    // The read models are maintained during the month, as in the demonstration.
    let models = ReadModels::start(&sound).await.unwrap();
    let lived = live_on(&work(rough.clone()), &args, found).await.unwrap();
    let audited = audit::run(&work(sound.clone()), &models).await.unwrap();
    models.close().await;
    assert!(audited.checks.iter().all(check::Check::holds), "{:?}", audited.checks);
    // The outcomes that the callers got agree with the store, and every command had one.
    let summary = history.check_store(&*events).await.unwrap();
    assert_eq!(summary.events, lived.tally.events, "seed={seed}");
    assert_eq!(summary.unknown_stored, 0, "every stored append was acknowledged");
    assert_eq!((lived.tally.commands, lived.tally.given_up), (400, 0));
    assert!(lived.running.commands > 200 && lived.conflicts > 0, "{lived:?}");
    for (key, holding) in &audited.ledger.accounts {
        let balance = rough.accounts.look(key, |it, _| i128::from(it.balance_cents)).await;
        assert_eq!(balance.unwrap(), holding.balance_cents, "account={key} seed={seed}");
    }
    rough.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory_a_rough_month_is_as_its_customers_were_told() {
    for seed in 0..4 {
        live_on_a_rough_store("memory:", seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_journal_a_rough_month_is_as_its_customers_were_told() {
    let folder = tempfile::tempdir().unwrap();
    live_on_a_rough_store(&format!("journal:{}", folder.path().join("j").display()), 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_sqlite_a_rough_month_is_as_its_customers_were_told() {
    let folder = tempfile::tempdir().unwrap();
    live_on_a_rough_store(&format!("sqlite:{}", folder.path().join("s.db").display()), 8).await;
}
