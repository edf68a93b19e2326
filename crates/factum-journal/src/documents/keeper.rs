//! The background thread of the documents: zeros for the next segment, runs, merges.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use factum_kernel::StoreError;

use super::Documents;
use crate::{report::Report, tail::Spare};

/// The background work that is wanted.
#[derive(Debug)]
pub(super) struct Duties {
    wanted: Mutex<Wanted>,
    wake: Condvar,
    /// Set when a segment was sealed; a merge looks at it between any two entries.
    flush: AtomicBool,
    flushing: Report,
    is_stopped: AtomicBool,
}

impl Default for Duties {
    fn default() -> Self {
        Self {
            wanted: Mutex::default(),
            wake: Condvar::new(),
            flush: AtomicBool::new(false),
            flushing: Report::new("writing a run of the documents"),
            is_stopped: AtomicBool::new(false),
        }
    }
}

#[derive(Debug, Default)]
struct Wanted {
    spare: Option<(Arc<Spare>, u32)>,
    runs: bool,
}

impl Duties {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces that a segment was sealed.
    pub(super) fn flush(&self) {
        self.flush.store(true, Ordering::Release);
        self.wanted().runs = true;
        self.wake.notify_all();
    }

    /// Announces that the next segment will be needed.
    pub(super) fn prepare_spare(&self, spare: &Arc<Spare>, bytes: u32) {
        self.wanted().spare = Some((spare.clone(), bytes));
        self.wake.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// Waits until there is work; `None` when the store is closed.
    fn next(&self) -> Option<Wanted> {
        let mut wanted = self.wanted();
        while !self.is_stopped() {
            if wanted.spare.is_some() || wanted.runs {
                return Some(std::mem::take(&mut *wanted));
            }
            wanted = self.wake.wait(wanted).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }
}

/// The thread. Its drop ends the thread, if need be in the middle of a merge.
#[derive(Debug)]
pub(crate) struct DocumentKeeper {
    documents: Arc<Documents>,
    thread: Option<JoinHandle<()>>,
}

impl DocumentKeeper {
    pub(crate) fn start(documents: Arc<Documents>) -> Result<Self, StoreError> {
        // The work that the last opening had no time for.
        documents.duties.flush();
        let work = documents.clone();
        let thread = thread::Builder::new().name("factum-journal-documents".into());
        let thread = thread.spawn(move || work.keep()).map_err(|e| {
            StoreError::unavailable("no thread for the journal, try again").with_source(e)
        })?;
        Ok(Self { documents, thread: Some(thread) })
    }
}

impl Drop for DocumentKeeper {
    fn drop(&mut self) {
        let Duties { is_stopped, wake, .. } = &self.documents.duties;
        {
            // Under the lock, so that the thread either has not looked yet or already waits.
            let _wanted = self.documents.duties.wanted();
            is_stopped.store(true, Ordering::Release);
        }
        wake.notify_all();
        // The panic hook has reported a panic of the thread, and the log does not need the thread.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Documents {
    fn keep(&self) {
        let zeroing = Report::new("writing zeros ahead of the documents");
        let merging = Report::new("merging runs of the documents");
        while let Some(Wanted { spare, runs }) = self.duties.next() {
            // An error recurs where the file is needed, and is returned to a caller there.
            if let Some((spare, bytes)) = spare {
                zeroing.note(spare.prepare(&*self.files, bytes));
            }
            if runs {
                self.flush_all();
                let is_stopped = || self.is_merge_stopped();
                while merging.note(self.merge_step(&is_stopped)) == Some(true) {}
            }
        }
    }

    fn flush_all(&self) {
        self.duties.flush.store(false, Ordering::Release);
        let flushing = &self.duties.flushing;
        while !self.duties.is_stopped() && flushing.note(self.flush_step()) == Some(true) {}
    }

    /// Writes pending runs in the middle of a merge, so that the writer does not wait for the
    /// merge's end while memory is full. Returns whether the merge must stop.
    fn is_merge_stopped(&self) -> bool {
        if self.duties.flush.load(Ordering::Acquire) {
            self.flush_all();
        }
        self.duties.is_stopped()
    }
}
