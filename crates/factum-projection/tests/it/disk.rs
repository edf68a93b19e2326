//! Documents that fail, don't answer, write late or end the process, by seeded chance.

use std::{
    fmt,
    future::pending,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use factum_kernel::{
    Document, DocumentStore, KeyRange, Revision, ScanPage, ScanQuery, StoreError, WriteBatch,
    WriteError,
};
use tokio::sync::Notify;

/// SplitMix64, seeded.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Self(seed ^ 0x5851_f42d_4c95_7f2d);
        chance.next();
        chance
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Returns true in this many of a hundred calls.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A process that can end at once, at any place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Process {
    is_dead: Arc<AtomicBool>,
    died: Arc<Notify>,
}

impl Process {
    /// Ends the process. The caller never gets past this call.
    pub(crate) async fn die<T>(&self) -> T {
        self.is_dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
        pending().await
    }

    /// Ends the process from code that can't wait.
    pub(crate) fn die_at_once(&self) -> ! {
        self.is_dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
        panic!("the process has ended")
    }

    /// Waits forever if the process has ended.
    async fn lives(&self) {
        if self.is_dead.load(Ordering::SeqCst) {
            pending::<()>().await;
        }
    }

    pub(crate) async fn died(&self) {
        self.died.notified().await;
    }
}

struct State {
    chance: Chance,
    /// The number of failures in a hundred calls.
    faults: u64,
    /// The number of the call at which the process ends.
    dies_in: Option<u64>,
    /// The writes that a store executes after it has answered "unknown".
    late: Vec<WriteBatch>,
}

/// The documents as one process sees them.
pub(crate) struct Disk {
    inner: Arc<dyn DocumentStore>,
    process: Process,
    state: Arc<Mutex<State>>,
}

enum Fate {
    Well,
    Away,
    Lost,
    LostAfter,
    Late,
    DiesBefore,
    DiesAfter,
}

impl Disk {
    pub(crate) fn new(inner: Arc<dyn DocumentStore>, seed: u64) -> Self {
        let state = State { chance: Chance::new(seed), faults: 0, dies_in: None, late: Vec::new() };
        Self { inner, process: Process::default(), state: Arc::new(Mutex::new(state)) }
    }

    /// The same documents for another process, which ends at one of its next calls if asked to.
    pub(crate) fn boot(&self, faults: u64, dies_in: Option<u64>) -> Self {
        (self.state().faults, self.state().dies_in) = (faults, dies_in);
        Self { inner: self.inner.clone(), process: Process::default(), state: self.state.clone() }
    }

    pub(crate) fn process(&self) -> Process {
        self.process.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn fate(&self) -> Fate {
        self.process.lives().await;
        let (late, fate) = {
            let mut state = self.state();
            let count = state.late.len();
            let is_late = count > 0 && state.chance.percent(30);
            let late = if is_late { state.late.remove(0).into() } else { None };
            (late, state.fate())
        };
        if let Some(late) = late {
            let _ = self.inner.write(late).await;
        }
        fate
    }
}

impl State {
    fn fate(&mut self) -> Fate {
        if let Some(left) = &mut self.dies_in {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.dies_in = None;
                return if self.chance.percent(50) { Fate::DiesBefore } else { Fate::DiesAfter };
            }
        }
        let faults = self.faults;
        if !self.chance.percent(faults) {
            return Fate::Well;
        }
        match self.chance.below(4) {
            0 => Fate::Away,
            1 => Fate::Lost,
            2 => Fate::LostAfter,
            _ => Fate::Late,
        }
    }
}

fn away() -> StoreError {
    StoreError::unavailable("the disk is away")
}

#[async_trait]
impl DocumentStore for Disk {
    async fn get(&self, key: &[u8]) -> Result<Option<Document>, StoreError> {
        match self.fate().await {
            Fate::Well | Fate::Late => self.inner.get(key).await,
            Fate::DiesBefore | Fate::DiesAfter => self.process.die().await,
            _ => Err(away()),
        }
    }

    async fn scan(&self, query: ScanQuery) -> Result<ScanPage, StoreError> {
        match self.fate().await {
            Fate::Well | Fate::Late => self.inner.scan(query).await,
            Fate::DiesBefore | Fate::DiesAfter => self.process.die().await,
            _ => Err(away()),
        }
    }

    async fn write(&self, batch: WriteBatch) -> Result<Revision, WriteError> {
        match self.fate().await {
            Fate::Well => self.inner.write(batch).await,
            Fate::Away => Err(away().into()),
            Fate::Lost => Err(WriteError::Indeterminate(away())),
            Fate::LostAfter => {
                let _ = self.inner.write(batch).await;
                Err(WriteError::Indeterminate(away()))
            }
            Fate::Late => {
                self.state().late.push(batch);
                Err(WriteError::Indeterminate(away()))
            }
            Fate::DiesBefore => self.process.die().await,
            Fate::DiesAfter => {
                let _ = self.inner.write(batch).await;
                self.process.die().await
            }
        }
    }

    async fn clear(&self, range: KeyRange) -> Result<(), StoreError> {
        match self.fate().await {
            Fate::Well | Fate::Late => self.inner.clear(range).await,
            Fate::DiesBefore => self.process.die().await,
            Fate::DiesAfter => {
                self.inner.clear(range).await?;
                self.process.die().await
            }
            Fate::Lost => {
                self.inner.clear(range).await?;
                Err(away())
            }
            _ => Err(away()),
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}
