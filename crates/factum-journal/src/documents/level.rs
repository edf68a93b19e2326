//! From memory to runs, and from many runs to few. Done beside the writer.
//!
//! A run is durable before what it replaces is removed, and its name says what it replaces: see
//! [`Folder`](super::Folder) for what counts after a crash.

use std::sync::{Arc, PoisonError};

use factum_kernel::{Direction, KeyRange, StoreError};

use super::{Documents, Sizes, merged::Merged, source};
use crate::{
    run::{Run, RunBuilder, RunHeader, RunKind},
    segment::{SegmentHeader, segment_name},
};

/// The most sealed segments in memory; beyond, the writer waits for a run.
pub(super) const SEALED_MAX: usize = 2;

impl Documents {
    /// Waits until memory has room for one more segment.
    pub(super) fn make_room(&self) -> Result<(), StoreError> {
        while self.state().sealed.len() >= SEALED_MAX {
            self.flush_step()?;
        }
        Ok(())
    }

    /// Writes the run of the oldest sealed segment and removes the segment. The answer: whether
    /// there was one.
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
            // Below the lowest run there is nothing to hide.
            if item.value.is_some() || !is_lowest {
                out.add(key, &item.encode())?;
            }
        }
        let run = self.open(&out.finish()?)?;
        self.update(|state| {
            Arc::make_mut(&mut state.runs).push(run);
            state.sealed.remove(0);
        });
        // What stays by an error is covered by the run, and removed at the next opening.
        let _ = self.files.remove(&segment_name(first));
        Ok(true)
    }

    /// Merges runs, if there are enough of one level. The answer: whether there were. Never twice
    /// at the same time.
    pub(crate) fn merge_step(&self, is_stopped: &dyn Fn() -> bool) -> Result<bool, StoreError> {
        let runs = self.runs();
        let at = self.sizes.and_then(|sizes| to_merge(&runs, sizes));
        let Some(at) = at else { return Ok(false) };
        let old = &runs[at..];
        let level = old.iter().map(|run| run.header.level).max().unwrap_or(0) + 1;
        let newest = old[old.len() - 1].header;
        let header = RunHeader { level, first: old[0].header.first, ..newest };
        let mut out = RunBuilder::of(RunKind::Documents, &*self.files, header)?;
        // What is read once is not worth a place in the cache.
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
            // Others may have come behind them meanwhile, but none among them.
            Arc::make_mut(&mut state.runs).splice(at..at + old.len(), [run]);
        });
        for run in old {
            // As above.
            let _ = self.files.remove(&run.name);
        }
        Ok(true)
    }

    fn open(&self, name: &str) -> Result<Arc<Run>, StoreError> {
        Run::open_as(RunKind::Documents, &*self.files, name).map(Arc::new)
    }
}

/// Where the runs begin that are to become one, which are the last ones. A run that shrank below
/// the level of those behind it counts as one of theirs.
fn to_merge(runs: &[Arc<Run>], sizes: Sizes) -> Option<usize> {
    let newest = level(runs.last()?, sizes);
    let same = runs.iter().rev().take_while(|run| level(run, sizes) <= newest).count();
    (same >= sizes.fanout).then(|| runs.len() - same)
}

/// The level of a run goes by its size: what was written over and over again stays on the lowest.
fn level(run: &Run, sizes: Sizes) -> u32 {
    // Twice a segment: a run has a list of keys and a filter, which the log has not.
    let mut level = 0;
    let mut bytes_max = u64::from(sizes.segment_bytes) * 2;
    while run.bytes > bytes_max {
        level += 1;
        bytes_max = bytes_max.saturating_mul(sizes.fanout as u64);
    }
    level
}
