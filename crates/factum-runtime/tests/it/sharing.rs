//! Two runtimes on one log: appends, rejections, no-ops and states are all as fresh as the log.

use std::{path::Path, sync::Arc};

use factum_kernel::{Kernel, Repository, TagKey};
use factum_runtime::{Entities, OtherWriters};
use factum_sqlite::{SqliteOptions, SqliteStore};
use factum_testing::{
    History, RecordingStore,
    bank::{Account, AccountCommand, AccountRejection},
};

use crate::{
    bench::{Bench, DEPOSIT, open, options},
    counter::{Counter, CounterCommand},
};

/// A runtime on a SQLite file, as another process would have it.
async fn runtime(path: &Path, history: &Arc<History>) -> (Entities<Account>, Entities<Counter>) {
    let store = Arc::new(SqliteStore::open(SqliteOptions::new(path)).await.unwrap());
    let recording = Arc::new(RecordingStore::new(store.clone(), history.clone()));
    let kernel = Kernel::new(recording, store).with_tag_key(TagKey::new([1; 32]));
    // `OtherWriters::None` is wrong here, but the store says that other processes may write.
    let options = options().with_other_writers(OtherWriters::None);
    let accounts = Entities::new(Repository::new(kernel.clone()), options);
    (accounts, Entities::new(Repository::new(kernel), options))
}

/// The lesson "stale answers": an entity in memory must not reject a command that another writer's
/// deposit has made possible.
#[tokio::test]
async fn a_warm_entity_says_nothing_that_the_log_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bank.db");
    let history = Arc::default();
    let (ours, our_counters) = runtime(&path, &history).await;
    let (theirs, their_counters) = runtime(&path, &history).await;
    ours.ask("ada", open("ada")).await.unwrap();
    let poor = theirs.ask("ada", AccountCommand::Withdraw { cents: 300 }).await.unwrap_err();
    assert!(matches!(poor.rejection(), Some(AccountRejection::InsufficientFunds { .. })));

    ours.ask("ada", AccountCommand::Deposit { cents: 500 }).await.unwrap();
    let withdraw = AccountCommand::Withdraw { cents: 300 };
    let withdrawn = theirs.ask_for("ada", withdraw, |ada| ada.balance_cents).await.unwrap();
    assert_eq!((withdrawn.reply, withdrawn.version.value()), (200, 3));
    let seen = ours.state("ada").await.unwrap();
    assert_eq!((seen.state.balance_cents, seen.version.value()), (200, 3));

    // A no-op is answered with the version and a reply too.
    our_counters.ask("one", CounterCommand::Nothing).await.unwrap();
    their_counters.ask("one", CounterCommand::Add).await.unwrap();
    let nothing = our_counters.ask_for("one", CounterCommand::Nothing, |one| one.count).await;
    let nothing = nothing.unwrap();
    assert_eq!((nothing.reply, nothing.version.value(), nothing.position), (1, 1, None));
    assert_eq!(theirs.stats().stale + ours.stats().stale, 2);
}

/// Each customer withdraws the amount of the last deposit, through either runtime. No withdrawal is
/// rejected, and no state is older than an answer before it.
#[tokio::test(flavor = "multi_thread")]
async fn two_runtimes_fight_over_the_same_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bank.db");
    let history = Arc::default();
    let banks = [runtime(&path, &history).await.0, runtime(&path, &history).await.0];
    for key in ["ada", "bob"] {
        banks[0].ask(key, open(key)).await.unwrap();
    }
    let customers = (0..8_usize).map(|customer| {
        let banks = banks.clone();
        tokio::spawn(async move {
            let key = ["ada", "bob"][customer % 2];
            for n in 0..12 {
                let here = &banks[(customer + n) % 2];
                let there = &banks[(customer + n + 1) % 2];
                let put = here.ask(key, DEPOSIT).await.unwrap();
                let seen = there.look(key, |_, version| version).await.unwrap();
                assert!(seen >= put.version, "a state older than an answer");
                let withdraw = AccountCommand::Withdraw { cents: 1 };
                there.ask(key, withdraw).await.expect("what was deposited is there");
                // No customer can withdraw a thousand, even from a stale state.
                let much = AccountCommand::Withdraw { cents: 1_000 };
                assert!(here.ask(key, much).await.unwrap_err().rejection().is_some());
            }
        })
    });
    for customer in customers.collect::<Vec<_>>() {
        customer.await.unwrap();
    }
    let store = SqliteStore::open(SqliteOptions::new(&path)).await.unwrap();
    let summary = history.check_store(&store).await.unwrap();
    assert_eq!(summary.events, 2 + 8 * 12 * 2);
    for key in ["ada", "bob"] {
        assert_eq!(banks[0].state(key).await.unwrap().state.balance_cents, 0);
    }
    let conflicts: u64 = banks.iter().map(|bank| bank.stats().conflicts).sum();
    assert!(conflicts > 0, "they did fight");
}

/// A repository beside the entities is another writer too, also on a store of this process only.
#[tokio::test]
async fn what_a_repository_stores_beside_the_entities_is_seen() {
    let bench = Bench::rough(1, factum_testing::FaultRates::none());
    let accounts = bench.accounts();
    accounts.ask("ada", open("ada")).await.unwrap();
    let repository = accounts.repository().clone();
    repository.execute("ada", &AccountCommand::Deposit { cents: 500 }).await.unwrap();
    accounts.ask("ada", AccountCommand::Withdraw { cents: 300 }).await.unwrap();
    repository.execute("ada", &DEPOSIT).await.unwrap();
    assert_eq!(accounts.state("ada").await.unwrap().state.balance_cents, 201);
    repository.delete("ada", factum_kernel::ExpectedVersion::Any).await.unwrap();
    let gone = accounts.ask("ada", DEPOSIT).await.unwrap_err();
    assert_eq!(gone.rejection(), Some(&AccountRejection::NotOpen));
}

#[tokio::test]
async fn where_nobody_else_writes_an_answer_that_appends_nothing_reads_nothing() {
    let bench = Bench::new();
    let options = options().with_other_writers(OtherWriters::None);
    let accounts = bench.entities::<Account>(options);
    accounts.ask("ada", open("ada")).await.unwrap();
    (0..100).for_each(|_| bench.faulty.next_read(factum_testing::Fault::FailBefore));
    assert_eq!(accounts.look("ada", |ada, _| ada.balance_cents).await.unwrap(), 0);
}
