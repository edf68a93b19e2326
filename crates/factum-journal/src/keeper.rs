//! The background work of the log: zeros for the next segment, runs of sealed segments, merges of
//! runs, and the reclaim of erased events' space. No acknowledged event depends on any of it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use factum_kernel::StoreError;

use crate::{
    erased::container_of,
    log::Log,
    reclaim::Reclaimer,
    report::Report,
    seal::{merge_step, seal_step},
    tail::Spare,
};

/// The most segments whose index is in memory. With more, the writer waits for a run.
pub(crate) const RECENTS_MAX: usize = 4;

/// The background threads.
#[derive(Debug)]
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    log: Arc<Log>,
    spare: Arc<Spare>,
    /// Held by the thread that writes a run.
    sealing: Mutex<()>,
    wanted: Mutex<Wanted>,
    wake: Condvar,
    is_stopped: AtomicBool,
}

/// The work that is wanted.
#[derive(Debug, Default)]
struct Wanted {
    spare_bytes: Option<u32>,
    seal: bool,
    merge: bool,
    /// Containers with positions that were erased lately.
    erased: BTreeSet<u64>,
}

impl Keeper {
    /// Starts the threads.
    pub(crate) fn start(log: Arc<Log>, spare: Arc<Spare>) -> Result<Self, StoreError> {
        let mut keeper = Self::idle(log, spare);
        keeper.spawn("factum-journal-zero", Shared::spare_loop)?;
        keeper.spawn("factum-journal-seal", Shared::seal_loop)?;
        keeper.spawn("factum-journal-merge", Shared::merge_loop)?;
        keeper.wake();
        let erased = keeper.shared.log.view().erased;
        keeper.shared.reclaim(erased.containers());
        Ok(keeper)
    }

    /// Makes a keeper without threads: the writer does all the work itself.
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

    /// Announces that a segment was sealed.
    pub(crate) fn wake(&self) {
        self.want(|wanted| (wanted.seal, wanted.merge) = (true, true));
    }

    /// Announces that positions in these containers were erased.
    pub(crate) fn reclaim(&self, containers: Vec<u64>) {
        // Most groups erase nothing.
        if !containers.is_empty() {
            self.shared.reclaim(containers);
        }
    }

    /// Announces that the next segment will be needed.
    pub(crate) fn prepare_spare(&self, bytes: u32) {
        self.want(|wanted| wanted.spare_bytes = Some(bytes));
    }

    fn want(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.shared.wanted());
        self.shared.wake.notify_all();
    }

    /// Waits until memory has room for the index of another segment.
    pub(crate) fn make_room(&self, log: &Log) -> Result<(), StoreError> {
        while log.view().tables.recents.len() > RECENTS_MAX {
            self.shared.seal()?;
        }
        Ok(())
    }
}

impl Keeper {
    /// Ends the threads, if need be in the middle of a merge.
    pub(crate) fn stop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Release);
        self.want(|_| {});
        for thread in self.threads.drain(..) {
            // The panic hook has reported a panic of the thread, and the log does not need the
            // thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // If the rest of an opening fails, no thread may stay that writes in the folder.
        self.stop();
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
        let is_sealed = seal_step(&self.log)?;
        let view = self.log.view();
        if let Some(run) = view.tables.runs.last().filter(|_| is_sealed) {
            // Space of events that were erased while the segment was active can be reclaimed from
            // now on.
            let sealed = container_of(run.header.first)..=container_of(run.header.last);
            self.reclaim(view.erased.containers().filter(|it| sealed.contains(it)));
        }
        Ok(is_sealed)
    }

    /// Waits until `take` finds work; `None` when the store is closed.
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

    fn spare_loop(&self) {
        let report = Report::new("writing zeros ahead of the log");
        while let Some(bytes) = self.next(|wanted| wanted.spare_bytes.take()) {
            // An error recurs where the file is needed, and is returned to a caller there.
            report.note(self.spare.prepare(&*self.log.files, bytes));
        }
    }

    fn seal_loop(&self) {
        let report = Report::new("indexing a sealed segment");
        let take = |wanted: &mut Wanted| std::mem::take(&mut wanted.seal).then_some(());
        while self.next(take).is_some() {
            // An error recurs where memory has no room for another segment.
            while !self.is_stopped() && report.note(self.seal()) == Some(true) {
                self.wanted().merge = true;
                self.wake.notify_all();
            }
        }
    }

    fn merge_loop(&self) {
        let is_stopped = || self.is_stopped();
        let mut reclaimer = Reclaimer::default();
        let merging = Report::new("merging runs of the index");
        let reclaiming = Report::new("reclaiming the space of erased events");
        // Merges come first: they are short, and fewer runs help every reader.
        let take = |wanted: &mut Wanted| match std::mem::take(&mut wanted.merge) {
            true => Some(None),
            false => wanted.erased.pop_first().map(Some),
        };
        while let Some(work) = self.next(take) {
            match work {
                None => while merging.note(merge_step(&self.log, &is_stopped)) == Some(true) {},
                // A segment whose reclaim failed is tried again later.
                Some(container) => {
                    reclaiming.note(reclaimer.reclaim(&self.log, container, &is_stopped));
                }
            }
        }
    }

    fn reclaim(&self, containers: impl IntoIterator<Item = u64>) {
        let mut wanted = self.wanted();
        let before = wanted.erased.len();
        wanted.erased.extend(containers);
        if wanted.erased.len() > before {
            self.wake.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use factum_kernel::{SystemClock, SystemIds};

    use super::*;
    use crate::{
        disk::SystemFiles,
        recovery::{self, Founded},
        tail::TailOptions,
    };

    #[test]
    fn threads_end_with_an_opening_that_fails_after_them() {
        let folder = tempfile::tempdir().unwrap();
        let ids = Arc::new(SystemIds);
        let clock = Arc::new(SystemClock);
        let options = TailOptions { ids, clock, segment_bytes: 4 << 10 };
        let files = Arc::new(SystemFiles::open(folder.path()).unwrap());
        let opened = recovery::open(files, Founded::Never, &options).unwrap();
        drop(Keeper::start(opened.log.clone(), opened.tail.spare.clone()).unwrap());
        assert_eq!(Arc::strong_count(&opened.log), 1, "a thread holds it");
    }
}
