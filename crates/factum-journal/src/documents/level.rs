//! The background work on runs: from memory to runs, and from many runs to few.
//!
//! A run is durable before the files that it replaces are removed, and its name tells which those
//! are. [`Folder`](super::Folder) decides which files count after a crash.

use std::sync::{Arc, PoisonError};

use factum_kernel::{Direction, KeyRange, StoreError};

use super::{Documents, Sizes, merged::Merged, source};
use crate::{
    run::{Run, RunBuilder, RunHeader, RunKind},
    segment::{SegmentHeader, segment_name},
};

/// The most sealed segments in memory. With more, the writer waits for a run.
pub(super) const SEALED_MAX: usize = 2;

impl Documents {
    /// Waits until memory has room for another segment.
    pub(super) fn make_room(&self) -> Result<(), StoreError> {
        while self.state().sealed.len() >= SEALED_MAX {
            self.flush_step()?;
        }
        Ok(())
    }

    /// Writes the run of the oldest sealed segment, and removes the segment. Returns whether there
    /// was one.
    pub(crate) fn flush_step(&self) -> Result<bool, StoreError> {
        let _alone = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let (table, next, is_lowest) = {
            let state = self.state();
            let Some(table) = state.sealed.first().cloned() else { return Ok(false) };
            let next = state.sealed.get(1).map_or(state.active.first(), |next| next.first());
            (table, next, state.runs.is_empty())
        };
        let SegmentHeader { lineage, salt, first, .. } = table.segment.header;
        let header = RunHeader { lineage, level: 0, first, last: next - 1, segment: first, salt };
        let mut out = RunBuilder::of(RunKind::Documents, &*self.files, header)?;
        for (key, item) in table.items() {
            // Below the lowest run there is no older value to hide.
            if item.value.is_some() || !is_lowest {
                out.add(key, &item.encode())?;
            }
        }
        let run = self.open(&out.finish()?)?;
        self.update(|state| {
            Arc::make_mut(&mut state.runs).push(run);
            state.sealed.remove(0);
        });
        // If this fails, the next opening removes the file, because the run covers it.
        let _ = self.files.remove(&segment_name(first));
        Ok(true)
    }

    /// Merges runs if there are enough of one level, and returns whether there were. Must not run
    /// twice at the same time.
    pub(crate) fn merge_step(&self, is_stopped: &dyn Fn() -> bool) -> Result<bool, StoreError> {
        let runs = self.runs();
        let at = self.sizes.and_then(|sizes| to_merge(&runs, sizes));
        let Some(at) = at else { return Ok(false) };
        let old = &runs[at..];
        let level = old.iter().map(|run| run.header.level).max().unwrap_or(0) + 1;
        let newest = old[old.len() - 1].header;
        let header = RunHeader { level, first: old[0].header.first, ..newest };
        let mut out = RunBuilder::of(RunKind::Documents, &*self.files, header)?;
        // Blocks that are read once are not worth a place in the cache.
        let all = |run| source(run, None, &KeyRange::all(), Direction::Forward);
        for entry in Merged::new(old.iter().rev().map(all).collect(), Direction::Forward) {
            if is_stopped() {
                return Ok(false);
            }
            let (key, item) = entry?;
            if item.value.is_some() || at > 0 {
                out.add(&key, &item.encode())?;
            }
        }
        let run = self.open(&out.finish()?)?;
        self.update(|state| {
            // Since then, runs may have been added after these, but none among them.
            Arc::make_mut(&mut state.runs).splice(at..at + old.len(), [run]);
        });
        for run in old {
            // As above, the next opening removes the file if this fails.
            let _ = self.files.remove(&run.name);
        }
        Ok(true)
    }

    fn open(&self, name: &str) -> Result<Arc<Run>, StoreError> {
        Run::open_as(RunKind::Documents, &*self.files, name).map(Arc::new)
    }
}

/// The index of the first run to merge; the merge takes all runs from there on. A run that shrank
/// below the level of later runs counts as one of their level.
fn to_merge(runs: &[Arc<Run>], sizes: Sizes) -> Option<usize> {
    let newest = level(runs.last()?, sizes);
    let same = runs.iter().rev().take_while(|run| level(run, sizes) <= newest).count();
    (same >= sizes.fanout).then(|| runs.len() - same)
}

/// The level of a run, by its size. A run of keys that are overwritten again and again stays on the
/// lowest level.
fn level(run: &Run, sizes: Sizes) -> u32 {
    // Twice a segment, because a run has a list of keys and a filter that the log lacks.
    let mut level = 0;
    let mut bytes_max = u64::from(sizes.segment_bytes) * 2;
    while run.bytes > bytes_max {
        level += 1;
        bytes_max = bytes_max.saturating_mul(sizes.fanout as u64);
    }
    level
}
