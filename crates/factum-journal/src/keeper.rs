//! What is done beside the writer: zeros for the next segment, runs of sealed segments, and the
//! merging of runs. Nothing of it is needed for what was acknowledged.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use factum_core::StoreError;

use crate::{
    log::Log,
    seal::{merge_step, seal_step},
    tail::Spare,
};

/// The most segments whose index is in memory; beyond, the writer waits for a run.
pub(crate) const RECENTS_MAX: usize = 4;

/// The threads beside the writer.
#[derive(Debug)]
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    log: Arc<Log>,
    spare: Arc<Spare>,
    /// Held while a run is written, by whoever writes it.
    sealing: Mutex<()>,
    wanted: Mutex<Wanted>,
    wake: Condvar,
    is_stopped: AtomicBool,
}

/// What there is to do.
#[derive(Debug, Default)]
struct Wanted {
    spare_bytes: Option<u32>,
    seal: bool,
    merge: bool,
}

impl Keeper {
    /// Starts the threads.
    pub(crate) fn start(log: Arc<Log>, spare: Arc<Spare>) -> Result<Self, StoreError> {
        let mut keeper = Self::idle(log, spare);
        keeper.spawn("factum-journal-seal", Shared::seal_loop)?;
        keeper.spawn("factum-journal-merge", Shared::merge_loop)?;
        keeper.wake();
        Ok(keeper)
    }

    /// Without threads: whatever must be done is done by the writer.
    pub(crate) fn idle(log: Arc<Log>, spare: Arc<Spare>) -> Self {
        let shared = Shared {
            log,
            spare,
            sealing: Mutex::default(),
            wanted: Mutex::default(),
            wake: Condvar::new(),
            is_stopped: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared), threads: Vec::new() }
    }

    fn spawn(&mut self, name: &str, work: fn(&Shared)) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let thread = thread::Builder::new().name(name.into()).spawn(move || work(&shared));
        self.threads.push(thread.map_err(|e| {
            StoreError::unavailable("no thread for the journal, try again").with_source(e)
        })?);
        Ok(())
    }

    /// Says that a segment was sealed.
    pub(crate) fn wake(&self) {
        self.want(|wanted| (wanted.seal, wanted.merge) = (true, true));
    }

    /// Says that the next segment will be needed.
    pub(crate) fn prepare_spare(&self, bytes: u32) {
        self.want(|wanted| wanted.spare_bytes = Some(bytes));
    }

    fn want(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.shared.wanted());
        self.shared.wake.notify_all();
    }

    /// Waits until memory has room for the index of one more segment.
    pub(crate) fn make_room(&self, log: &Log) -> Result<(), StoreError> {
        while log.view().tables.recents.len() > RECENTS_MAX {
            self.shared.seal()?;
        }
        Ok(())
    }
}

impl Keeper {
    /// Ends the threads, in the middle of a merge if need be.
    pub(crate) fn stop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Release);
        self.want(|_| {});
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so; the log does not need it.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    fn seal(&self) -> Result<bool, StoreError> {
        let _sealing = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        seal_step(&self.log)
    }

    /// Waits until `take` finds something to do; `None` when the store is closed.
    fn next<T>(&self, mut take: impl FnMut(&mut Wanted) -> Option<T>) -> Option<T> {
        let mut wanted = self.wanted();
        loop {
            if self.is_stopped() {
                return None;
            }
            if let Some(work) = take(&mut wanted) {
                return Some(work);
            }
            wanted = self.wake.wait(wanted).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn seal_loop(&self) {
        let take = |wanted: &mut Wanted| {
            let work = (wanted.spare_bytes.take(), std::mem::take(&mut wanted.seal));
            (work != (None, false)).then_some(work)
        };
        while let Some((spare_bytes, seal)) = self.next(take) {
            // An error here comes again where the work is needed, and is told to a caller there.
            if let Some(bytes) = spare_bytes {
                let _ = self.spare.prepare(&*self.log.files, bytes);
            }
            while seal && !self.is_stopped() && matches!(self.seal(), Ok(true)) {
                self.wanted().merge = true;
                self.wake.notify_all();
            }
        }
    }

    fn merge_loop(&self) {
        let take = |wanted: &mut Wanted| std::mem::take(&mut wanted.merge).then_some(());
        while self.next(take).is_some() {
            let is_stopped = || self.is_stopped();
            while matches!(merge_step(&self.log, &is_stopped), Ok(true)) {}
        }
    }
}
