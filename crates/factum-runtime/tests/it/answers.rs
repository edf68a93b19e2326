//! All answers of two runtimes, transactions and a failing store that interfere with each other,
//! compared with the log: no answer is stale, and none is given too early.

use std::{fmt::Debug, path::Path, sync::Arc};

use factum_journal::{JournalOptions, JournalStore};
use factum_kernel::{
    Aggregate, CommandId, DocumentStore, EventStore, Kernel, Metadata, Repository, RetryPolicy,
    SnapshotPolicy, SystemClock, TagKey, Transaction,
};
use factum_memory::MemoryStore;
use factum_runtime::{AskError, Entities, EntityError};
use factum_sqlite::{SqliteOptions, SqliteStore};
use factum_testing::{
    Answer, Answers, FaultRates, FaultyStore, History, RecordingStore,
    bank::{Account, AccountCommand},
};

use crate::{
    bench::{DEPOSIT, open, options},
    counter::{Counter, CounterCommand},
    polling::poll_times,
};

const KEYS: [&str; 4] = ["ada", "bob", "cyd", "dan"];
const CLERKS: u64 = 6;
const STEPS: u64 = 30;

/// The number of simulated days; a full run has ten times as many.
fn days(short: u64) -> std::ops::Range<u64> {
    0..if std::env::var_os("FACTUM_TEST_FULL").is_some() { 10 * short } else { short }
}

/// Runtimes on one log, and the log that their answers are compared with.
struct Town {
    kernels: [Kernel; 2],
    /// The store below the layer that fails.
    truth: Arc<dyn EventStore>,
    history: Arc<History>,
}

impl Town {
    /// Two handles on one log, each with random failures.
    fn on<S>(handles: [Arc<S>; 2], truth: Arc<dyn EventStore>, seed: u64) -> Self
    where
        S: EventStore + DocumentStore + 'static,
    {
        let history = Arc::new(History::new());
        let mut seeds = seed..;
        let kernels = handles.map(|store| {
            let seed = seeds.next().unwrap_or_default();
            let rates = FaultRates::rough();
            let clock = Arc::new(SystemClock);
            let faulty = FaultyStore::new(store.clone(), seed, rates, clock);
            let recording = Arc::new(RecordingStore::new(Arc::new(faulty), history.clone()));
            Kernel::new(recording, store).with_tag_key(TagKey::new([1; 32]))
        });
        Self { kernels, truth, history }
    }

    fn in_memory(seed: u64) -> Self {
        let store = Arc::new(MemoryStore::new());
        Self::on([store.clone(), store.clone()], store, seed)
    }

    async fn in_a_journal(folder: &Path, seed: u64) -> Self {
        let options = JournalOptions::new(folder.join("journal"));
        let store = Arc::new(JournalStore::open(options).await.unwrap());
        Self::on([store.clone(), store.clone()], store, seed)
    }

    /// Handles without shared state, as two processes would have them.
    async fn in_one_sqlite_file(folder: &Path, seed: u64) -> Self {
        let path = folder.join("bank.db");
        let open = || SqliteStore::open(SqliteOptions::new(&path));
        let handles = [Arc::new(open().await.unwrap()), Arc::new(open().await.unwrap())];
        Self::on(handles, Arc::new(open().await.unwrap()), seed)
    }

    /// Few entities fit into memory, mailboxes are small, and no caller gives up.
    fn runtimes<A: Aggregate>(&self) -> [Entities<A>; 2] {
        let mut patient = RetryPolicy::new().with_conflicts_max(10_000).with_repeats_max(100);
        patient.pause_max = patient.pause_min;
        let small = options().with_weight_max(64 * 700).with_mailbox_max(3);
        self.kernels
            .clone()
            .map(|kernel| Entities::new(Repository::new(kernel).with_retry(patient), small))
    }
}

/// Asks, and notes the answer; `false` if the domain rejected the command.
async fn ask<A>(answers: &Answers<A>, on: &Entities<A>, key: &str, command: A::Command) -> bool
where
    A: Aggregate + Clone,
    A::Command: Clone,
{
    let call = answers.call(key).await.unwrap();
    let asked = on.ask_for(key, command.clone(), A::clone).await;
    let answer = match asked {
        Ok(done) => {
            let version = done.version;
            let position = done.position;
            let state = done.reply;
            Answer::Done { command, version, position, events: done.events, state }
        }
        Err(AskError::Rejected(rejection)) => Answer::Rejected { command, rejection },
        Err(AskError::Failed(error)) => panic!("no caller gives up: {error}"),
    };
    let is_done = matches!(answer, Answer::Done { .. });
    answers.answered(call, answer).await.unwrap();
    is_done
}

async fn see<A>(answers: &Answers<A>, on: &Entities<A>, key: &str)
where
    A: Aggregate + Clone + Debug,
{
    let call = answers.call(key).await.unwrap();
    let seen = on.state(key).await.unwrap();
    let answer = Answer::Seen { version: seen.version, state: seen.state };
    answers.answered(call, answer).await.unwrap();
}

/// SplitMix64, so that a failure can be repeated.
fn random(state: &mut u64, below: u64) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % below) as usize
}

/// The deposits without an answer: events that are certainly stored, and events that may be.
#[derive(Default)]
struct Untold {
    sure: u64,
    perhaps: u64,
}

/// The day of a clerk: the requests of the demo's customers, and of hasty customers who leave
/// early.
async fn work(
    banks: [Entities<Account>; 2],
    answers: Arc<Answers<Account>>,
    mut seed: u64,
) -> Untold {
    let mut untold = Untold::default();
    for _ in 0..STEPS {
        let bank = &banks[random(&mut seed, 2)];
        let from = random(&mut seed, 4);
        let to = 1 + random(&mut seed, 3);
        let key = KEYS[from];
        let other = KEYS[(from + to) % 4];
        match random(&mut seed, 11) {
            0..3 => assert!(ask(&answers, bank, key, DEPOSIT).await),
            3..5 => drop(ask(&answers, bank, key, AccountCommand::Withdraw { cents: 1 }).await),
            5 => assert!(!ask(&answers, bank, key, open(other)).await),
            6 => see(&answers, bank, key).await,
            7 => untold.sure += 2 * u64::from(transfer(bank, key, other).await),
            8 => untold.sure += send_twice(&banks, key, seed).await,
            9 => match bank.tell(key, DEPOSIT) {
                Ok(()) => untold.sure += 1,
                Err(error) => assert!(matches!(error, EntityError::Busy(_)), "{error}"),
            },
            _ => {
                untold.perhaps += 1;
                poll_times(bank.ask(key, DEPOSIT), random(&mut seed, 6)).await;
            }
        }
    }
    untold
}

/// One deposit with its id, sent to both runtimes at the same time: it is stored once, and both
/// answer so. Returns its events.
async fn send_twice(banks: &[Entities<Account>; 2], key: &str, seed: u64) -> u64 {
    let id = CommandId::derived(seed.to_be_bytes(), "deposit");
    let send = |bank: &Entities<Account>| {
        let bank = bank.clone();
        async move { bank.ask_once(key, id, DEPOSIT, Metadata::new()).await.unwrap() }
    };
    let (one, other) = tokio::join!(send(&banks[0]), send(&banks[1]));
    assert_eq!((one.version, one.position), (other.version, other.position));
    assert!(one.replayed != other.replayed, "one of them stored it");
    1
}

/// Another writer to both accounts; `false` if the balance was too low.
async fn transfer(bank: &Entities<Account>, from: &str, to: &str) -> bool {
    let accounts = bank.repository();
    let patient = RetryPolicy::new().with_conflicts_max(10_000).with_repeats_max(100);
    let done = Transaction::new(accounts.kernel().clone())
        .with_retry(patient)
        .execute(accounts, from, AccountCommand::Send { to: to.into(), cents: 1 })
        .execute(accounts, to, AccountCommand::Receive { from: from.into(), cents: 1 })
        .commit(&Metadata::new())
        .await;
    match done {
        Ok(_) => true,
        Err(factum_kernel::TransactionError::Rejected(_)) => false,
        Err(error) => panic!("no caller gives up: {error}"),
    }
}

async fn a_day(town: Town, seed: u64) {
    let banks = town.runtimes::<Account>();
    let answers = Arc::new(Answers::new(town.truth.clone()));
    for key in KEYS {
        assert!(ask(&answers, &banks[0], key, open(key)).await);
    }
    let clerks = (0..CLERKS)
        .map(|clerk| tokio::spawn(work(banks.clone(), answers.clone(), seed * CLERKS + clerk)));
    let mut untold = Untold::default();
    for clerk in clerks.collect::<Vec<_>>() {
        let more = clerk.await.unwrap();
        untold.sure += more.sure;
        untold.perhaps += more.perhaps;
    }
    for bank in &banks {
        let left = bank.shutdown(std::time::Duration::from_secs(60)).await;
        assert_eq!((left.unfinished.len(), left.refused), (0, 0));
    }
    let told = answers.check().await.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    let possible = untold.sure..=untold.sure + untold.perhaps;
    assert!(possible.contains(&told.untold), "seed {seed}: {told:?} not in {possible:?}");
    assert!(told.stored > 20 && told.rejected > 5 && told.seen > 5, "{told:?}");
    let stored = town.history.check_store(&*town.truth).await;
    let stored = stored.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    assert_eq!(stored.events, told.events + told.untold);
    let stats = banks.map(|bank| bank.stats());
    assert!(stats.iter().all(|it| it.conflicts > 0 && it.failed == 0), "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory_every_answer_was_so_at_some_moment_of_its_call() {
    for seed in days(10) {
        a_day(Town::in_memory(seed), seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_journal_every_answer_was_so_at_some_moment_of_its_call() {
    for seed in days(3) {
        let folder = tempfile::tempdir().unwrap();
        a_day(Town::in_a_journal(folder.path(), seed).await, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_one_sqlite_file_every_answer_was_so_at_some_moment_of_its_call() {
    for seed in days(3) {
        let folder = tempfile::tempdir().unwrap();
        a_day(Town::in_one_sqlite_file(folder.path(), seed).await, seed).await;
    }
}

/// A no-op is answered with a version and a reply, which must be those of one moment during the
/// call.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_do_was_so_at_some_moment_of_its_call() {
    let folder = tempfile::tempdir().unwrap();
    for town in [Town::in_memory(1), Town::in_one_sqlite_file(folder.path(), 2).await] {
        let counters = town.runtimes::<Counter>();
        let answers = Arc::new(Answers::<Counter>::new(town.truth.clone()));
        let clerks = (0..4_usize).map(|clerk| {
            let counters = counters.clone();
            let answers = answers.clone();
            tokio::spawn(async move {
                for n in 0..30 {
                    let [here, there] = [&counters[n % 2], &counters[(n + clerk) % 2]];
                    ask(&answers, here, "one", CounterCommand::Add).await;
                    ask(&answers, there, "one", CounterCommand::Nothing).await;
                    see(&answers, there, "one").await;
                }
            })
        });
        for clerk in clerks.collect::<Vec<_>>() {
            clerk.await.unwrap();
        }
        let told = answers.check().await.unwrap();
        assert_eq!((told.stored, told.nothing, told.seen, told.untold), (120, 120, 120, 0));
    }
}

/// Snapshots are caches: every answer is the same with and without them.
#[tokio::test(flavor = "multi_thread")]
async fn with_snapshots_every_answer_was_so_at_some_moment_of_its_call() {
    let town = Town::in_memory(11);
    let answers = Arc::new(Answers::new(town.truth.clone()));
    let banks = town.runtimes::<Account>().map(|bank| {
        let policy = SnapshotPolicy::every_events(7).with_kept(2);
        let accounts = bank.repository().clone().with_snapshots(policy).unwrap();
        Entities::new(accounts, options().with_weight_max(0))
    });
    for key in KEYS {
        assert!(ask(&answers, &banks[0], key, open(key)).await);
    }
    let clerks = (0..CLERKS).map(|seed| tokio::spawn(work(banks.clone(), answers.clone(), seed)));
    for clerk in clerks.collect::<Vec<_>>() {
        clerk.await.unwrap();
    }
    for bank in &banks {
        bank.shutdown(std::time::Duration::from_secs(60)).await;
    }
    answers.check().await.unwrap();
    town.history.check_store(&*town.truth).await.unwrap();
}
