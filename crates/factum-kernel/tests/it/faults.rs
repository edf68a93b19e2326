//! The repository on a store that loses requests and replies: no command takes effect twice, none
//! that was answered is lost, and what is unknown is called so.

use std::{sync::Arc, time::Duration};

use factum_kernel::{ExecuteError, ExpectedVersion, Kernel, Position, Repository, RetryPolicy};
use factum_testing::{
    Fault, FaultRates, FaultyDocuments, FaultyStore, History, RecordingStore,
    bank::{Account, AccountCommand},
};

use crate::bench::{Bench, no_metadata, open};

/// A bank on a faulty store, and what was attempted against it.
struct Faulty {
    bench: Bench,
    kernel: Kernel,
    store: Arc<FaultyStore>,
    history: Arc<History>,
}

impl Faulty {
    fn new(seed: u64, rates: FaultRates) -> Self {
        let bench = Bench::new();
        let clock = bench.kernel.clock().clone();
        let store = Arc::new(FaultyStore::new(bench.store.clone(), seed, rates, clock.clone()));
        let history = Arc::new(History::new());
        let recording = Arc::new(RecordingStore::new(store.clone(), history.clone()));
        let documents = FaultyDocuments::new(bench.store.clone(), seed, rates, clock.clone());
        let kernel = Kernel::new(recording, Arc::new(documents))
            .with_clock(clock)
            .with_ids(bench.kernel.ids().clone());
        let kernel = bench
            .kernel
            .tag_key()
            .into_iter()
            .fold(kernel, |kernel, key| kernel.with_tag_key(key.clone()));
        Self { bench, kernel, store, history }
    }

    fn accounts(&self, retry: RetryPolicy) -> Repository<Account> {
        Repository::new(self.kernel.clone()).with_retry(retry)
    }
}

fn patient() -> RetryPolicy {
    RetryPolicy::new().with_conflicts_max(10_000).with_repeats_max(100)
}

const DEPOSIT: AccountCommand = AccountCommand::Deposit { cents: 1 };

#[tokio::test(flavor = "multi_thread")]
async fn racing_writers_on_a_rough_store_lose_and_double_nothing() {
    for seed in 0..20 {
        let faulty = Faulty::new(seed, FaultRates::rough());
        let snapshots = factum_kernel::SnapshotPolicy::every_events(7).with_kept(2);
        let accounts = faulty.accounts(patient()).with_snapshots(snapshots).unwrap();
        accounts.execute("ada", &open("ada")).await.unwrap();
        let writers = (0..8).map(|_| {
            let accounts = accounts.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    accounts.execute("ada", &DEPOSIT).await.unwrap();
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        assert_eq!(faulty.bench.balance("ada").await, (80, 81), "seed {seed}");
        let summary = faulty.history.check_store(&*faulty.bench.store).await;
        assert_eq!(summary.unwrap().events, 81, "seed {seed}");
    }
}

#[tokio::test]
async fn a_lost_reply_is_asked_for_again_and_the_command_takes_effect_once() {
    let faulty = Faulty::new(1, FaultRates::none());
    let accounts = faulty.accounts(RetryPolicy::new());
    accounts.execute("ada", &open("ada")).await.unwrap();
    for fault in [Fault::DropReply, Fault::DropRequest, Fault::FailBefore] {
        faulty.store.next_append(fault);
        faulty.store.next_append(Fault::DropReply);
        let done = accounts.execute("ada", &DEPOSIT).await.unwrap();
        assert_eq!(done.version.value(), faulty.bench.balance("ada").await.1, "{fault:?}");
    }
    assert_eq!(faulty.bench.balance("ada").await, (3, 4));
    faulty.history.check_store(&*faulty.bench.store).await.unwrap();
}

#[tokio::test]
async fn a_deletion_whose_reply_is_lost_is_repeated_and_deletes_once() {
    let faulty = Faulty::new(1, FaultRates::none());
    let accounts = faulty.accounts(RetryPolicy::new());
    for fault in [Fault::DropReply, Fault::DropRequest, Fault::FailBefore] {
        let opened = accounts.execute("ada", &open("ada")).await.unwrap();
        faulty.store.next_append(fault);
        let deleted = accounts.delete("ada", ExpectedVersion::Any).await.unwrap();
        assert_eq!(deleted.version, opened.version.next(), "{fault:?}");
        assert_eq!(deleted.position, opened.position.map(Position::next), "{fault:?}");
        let again = accounts.delete("ada", deleted.version.into()).await.unwrap();
        assert_eq!((again.version, again.position), (deleted.version, None), "{fault:?}");
    }
    faulty.history.check_store(&*faulty.bench.store).await.unwrap();
}

#[tokio::test]
async fn what_stays_unknown_is_called_unknown() {
    let faulty = Faulty::new(1, FaultRates::none());
    let accounts = faulty.accounts(RetryPolicy::new().with_repeats_max(2));
    accounts.execute("ada", &open("ada")).await.unwrap();
    for (lost, stored) in [(Fault::DropReply, 1), (Fault::DropRequest, 0)] {
        let before = faulty.bench.balance("ada").await.1;
        faulty.store.next_append(lost);
        // That the store is down afterwards must not turn "unknown" into "nothing was stored".
        faulty.store.next_append(Fault::FailBefore);
        faulty.store.next_append(Fault::FailBefore);
        let refused = accounts.execute("ada", &DEPOSIT).await;
        assert!(matches!(refused, Err(ExecuteError::Indeterminate(_))), "{refused:?}");
        assert_eq!(faulty.bench.balance("ada").await.1, before + stored, "{lost:?}");
    }
    faulty.store.next_append(Fault::FailBefore);
    let plain = faulty.accounts(RetryPolicy::never()).execute("ada", &DEPOSIT).await;
    assert!(matches!(plain, Err(ExecuteError::Store(_))), "{plain:?}");
}

#[tokio::test]
async fn a_transfer_on_a_rough_store_is_stored_once_on_both_sides() {
    for seed in 0..20 {
        let faulty = Faulty::new(seed, FaultRates::rough());
        let accounts = faulty.accounts(patient());
        for key in ["ada", "bob"] {
            accounts.execute(key, &open(key)).await.unwrap();
        }
        for _ in 0..10 {
            accounts.execute("ada", &DEPOSIT).await.unwrap();
            let send = AccountCommand::Send { to: "bob".into(), cents: 1 };
            let receive = AccountCommand::Receive { from: "ada".into(), cents: 1 };
            let transfer = factum_kernel::Transaction::new(faulty.kernel.clone())
                .with_retry(patient())
                .execute(&accounts, "ada", send)
                .execute(&accounts, "bob", receive);
            transfer.commit(&no_metadata()).await.unwrap();
        }
        let ada = faulty.bench.balance("ada").await;
        let bob = faulty.bench.balance("bob").await;
        assert_eq!((ada, bob), ((0, 21), (10, 11)), "seed {seed}");
        faulty.history.check_store(&*faulty.bench.store).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_cancelled_anywhere_stores_once_or_not_at_all() {
    for after in 0..40 {
        let faulty = Faulty::new(after, FaultRates::none());
        let accounts = faulty.accounts(patient());
        accounts.execute("ada", &open("ada")).await.unwrap();
        for _ in 0..3 {
            faulty.store.next_append(Fault::Delay(Duration::from_micros(10)));
        }
        let mut execution = Box::pin(accounts.execute("ada", &DEPOSIT));
        for _ in 0..after {
            let polled = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(execution.as_mut().poll(cx).is_ready())
            });
            if polled.await {
                break;
            }
            tokio::task::yield_now().await;
        }
        // Polled no more: cancelled there.
        drop(execution);
        accounts.execute("ada", &DEPOSIT).await.unwrap();
        let (balance, version) = faulty.bench.balance("ada").await;
        assert!((1..=2).contains(&balance) && version == balance + 1, "{balance} at {version}");
    }
}
