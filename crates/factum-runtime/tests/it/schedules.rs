//! Entities under many schedules: callers that wait, leave, or only tell; entities that are
//! passivated in between; a slow and failing store; and a shutdown in the middle.
//!
//! One thread, and a clock that moves with every sleep: only the seed decides the schedule, so a
//! failure can be repeated.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
};

use factum_kernel::{IdSource, Kernel, Repository};
use factum_runtime::{AskError, Entities, EntityError};
use factum_testing::{
    FaultRates, SeededIds,
    bank::{Account, AccountCommand, AccountEvent},
};

use crate::bench::{Bench, DEPOSIT, millis, open, options};

const SEEDS: u64 = 100;
const CALLERS: u64 = 6;
const STEPS: u64 = 25;
const KEYS: [&str; 3] = ["ada", "bob", "eve"];

/// The shared knowledge of the callers of one key.
#[derive(Default)]
struct Known {
    /// The deposits that were answered, with the versions at which they are stored.
    answered: BTreeMap<u64, u64>,
    /// The deposits that were answered with an error which says that they took no effect.
    refused: BTreeSet<u64>,
}

impl Known {
    fn failed(&mut self, cents: u64, error: &EntityError) {
        match error {
            // The deposit may be stored.
            EntityError::Indeterminate(_) => {}
            EntityError::Lost(_) => panic!("no task was dropped"),
            _ => drop(self.refused.insert(cents)),
        }
    }
}

struct Caller {
    number: u64,
    accounts: Entities<Account>,
    known: Arc<Mutex<BTreeMap<&'static str, Known>>>,
    random: SeededIds,
    /// The highest version of each key that this caller has seen.
    seen: BTreeMap<&'static str, u64>,
}

impl Caller {
    fn below(&self, count: u64) -> u64 {
        self.random.jitter(millis(count * 1_000 - 1)).as_millis() as u64 / 1_000
    }

    async fn dawdle(&self) {
        for _ in 0..self.below(4) {
            tokio::task::yield_now().await;
        }
    }

    async fn live(mut self) {
        for step in 0..STEPS {
            let key = KEYS[self.below(3) as usize];
            // Each deposit has another amount, by which it is found in the log.
            let cents = 1 + self.number * STEPS + step;
            match self.below(4) {
                0 | 1 => self.ask(key, cents).await,
                2 => self.tell(key, cents),
                _ => self.look(key).await,
            }
            self.dawdle().await;
        }
    }

    /// Asks, and may leave before the answer.
    async fn ask(&mut self, key: &'static str, cents: u64) {
        let accounts = self.accounts.clone();
        let patience = [0, 1, 2, 3, 5, 8, 1_000, 1_000][self.below(8) as usize];
        let answer = polled(accounts.ask(key, AccountCommand::Deposit { cents }), patience).await;
        let mut known = self.known.lock().unwrap();
        let known = known.entry(key).or_default();
        match answer {
            Some(Ok(outcome)) => {
                let version = outcome.version.value();
                known.answered.insert(cents, version);
                let seen = self.seen.entry(key).or_default();
                assert!(version > *seen, "{key}: stored at {version}, behind {seen}");
                *seen = version;
            }
            Some(Err(AskError::Failed(error))) => known.failed(cents, &error),
            Some(Err(AskError::Rejected(rejection))) => panic!("{rejection}"),
            None if patience == 0 => drop(known.refused.insert(cents)),
            None => {}
        }
    }

    fn tell(&mut self, key: &'static str, cents: u64) {
        if let Err(error) = self.accounts.tell(key, AccountCommand::Deposit { cents }) {
            self.known.lock().unwrap().entry(key).or_default().failed(cents, &error);
        }
    }

    async fn look(&mut self, key: &'static str) {
        let looked = self.accounts.look(key, |_, version| version.value()).await;
        if let Ok(version) = looked {
            let seen = self.seen.entry(key).or_default();
            assert!(version >= *seen, "{key}: a look at {version}, behind {seen}");
            *seen = version;
        }
    }
}

/// Polls a future n times, letting all other tasks run in between; `None` if it was dropped.
async fn polled<T>(future: impl Future<Output = T>, times: u64) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..times {
        let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(done) = polled {
            return Some(done);
        }
        tokio::task::yield_now().await;
    }
    None
}

async fn one_schedule(seed: u64) {
    let rates = FaultRates {
        delay: 0.3,
        fail_before: 0.05,
        drop_reply: 0.03,
        delay_max: millis(5),
        ..FaultRates::none()
    };
    let bench = Bench::rough(seed, rates);
    // Room for two of the three entities, and for few messages.
    let options = options().with_idle(millis(40)).with_mailbox_max(3).with_weight_max(64 * 700);
    let accounts = bench.entities::<Account>(options);
    for key in KEYS {
        while accounts.ask(key, open(key)).await.is_err() {
            if accounts.look(key, |_, version| version.value()).await.is_ok_and(|it| it > 0) {
                break;
            }
        }
    }
    let known = Arc::new(Mutex::new(BTreeMap::new()));
    let callers = (0..CALLERS).map(|number| {
        let accounts = accounts.clone();
        let known = known.clone();
        let random = SeededIds::new(seed * CALLERS + number);
        tokio::spawn(Caller { number, accounts, known, random, seen: BTreeMap::new() }.live())
    });
    let callers: Vec<_> = callers.collect();
    for _ in 0..SeededIds::new(seed).jitter(millis(400)).as_millis() {
        tokio::task::yield_now().await;
    }
    let shutdown = accounts.shutdown(millis(seed % 3 * 20)).await;
    assert!(accounts.tell("ada", DEPOSIT).is_err(), "closed is closed");
    for caller in callers {
        caller.await.unwrap();
    }
    while accounts.stats().active > 0 {
        tokio::task::yield_now().await;
    }
    assert!(shutdown.unfinished.len() <= KEYS.len());
    bench.history.check_store(&*bench.store).await.unwrap();
    let known = std::mem::take(&mut *known.lock().unwrap());
    for (key, known) in &known {
        check(key, known, &deposits(&bench, key).await);
    }
}

/// The stored amounts, with their versions.
async fn deposits(bench: &Bench, key: &str) -> Vec<(u64, u64)> {
    let kernel = Kernel::new(bench.store.clone(), bench.store.clone());
    let mut history = Repository::<Account>::new(kernel).history(key).unwrap();
    let mut found = Vec::new();
    while let Some(entry) = history.next().await {
        let entry = entry.unwrap();
        found.extend(entry.events.iter().filter_map(|event| match event {
            AccountEvent::Deposited { cents } => Some((*cents, entry.recorded.version().value())),
            _ => None,
        }));
    }
    found
}

fn check(key: &str, known: &Known, stored: &[(u64, u64)]) {
    let by_cents: BTreeMap<_, _> = stored.iter().copied().collect();
    assert_eq!(by_cents.len(), stored.len(), "{key}: nothing is stored twice");
    for (cents, version) in &known.answered {
        assert_eq!(by_cents.get(cents), Some(version), "{key}: {cents} was answered");
    }
    for cents in &known.refused {
        assert!(!by_cents.contains_key(cents), "{key}: {cents} was refused, and is stored");
    }
}

#[test]
fn whatever_the_schedule_answers_are_true_and_nothing_is_stored_twice() {
    for seed in 0..SEEDS {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(one_schedule(seed));
        }));
        assert!(ended.is_ok(), "seed={seed}");
    }
}
