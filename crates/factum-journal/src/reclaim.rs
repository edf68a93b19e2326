//! The reclaim of space: decides which sealed segments are rewritten without their erased events.

use std::ops::RangeInclusive;

use factum_kernel::StoreError;
use hashbrown::HashMap;

use crate::{
    erased::positions_of,
    key,
    log::{Log, View},
    rewrite::rewrite,
    run::Run,
    segment::Segment,
};

/// After an error, a segment is tried again when more of it is erased: at least its positions
/// divided by this number. Until then a failing rewrite is not repeated over and over.
const RETRY_PART: u64 = 16;

/// The segments looked at so far.
#[derive(Debug, Default)]
pub(crate) struct Reclaimer {
    segments: HashMap<u64, Known>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// The number of events that it still holds, erased ones included.
    held: u64,
    /// The number of its erased events when its rewrite failed.
    failed_at: Option<u64>,
}

impl Reclaimer {
    /// Rewrites those sealed segments of a container of positions for which it is worth it. Returns
    /// their number. Must not run twice at the same time, nor while runs are merged.
    ///
    /// # Errors
    /// The last error; the other segments were rewritten nonetheless.
    pub(crate) fn reclaim(
        &mut self,
        log: &Log,
        container: u64,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<usize, StoreError> {
        let view = log.view();
        let mut rewritten = Ok(0);
        for segment in segments_of(log, &view, container)? {
            if is_stopped() {
                break;
            }
            match self.reclaim_segment(log, &view, segment, is_stopped) {
                Ok(is_rewritten) => {
                    rewritten = rewritten.map(|count| count + usize::from(is_rewritten));
                }
                Err(error) => rewritten = Err(error),
            }
        }
        rewritten
    }

    fn reclaim_segment(
        &mut self,
        log: &Log,
        view: &View,
        segment: RangeInclusive<u64>,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<bool, StoreError> {
        let (first, last) = segment.clone().into_inner();
        let positions = last + 1 - first;
        let erased = view.erased.count(first, last);
        // With fewer erased, it can't be worth it, however much was left out before.
        if erased * 2 < positions {
            return Ok(false);
        }
        let known = match self.segments.get(&first) {
            Some(known) => *known,
            None => Known { held: held(log, first, positions)?, failed_at: None },
        };
        self.segments.insert(first, known);
        let waits = known.failed_at.is_some_and(|at| erased <= at + positions / RETRY_PART);
        if waits || !is_worth_it(positions, erased, known.held) {
            return Ok(false);
        }
        let written = rewrite(&*log.files, segment, &view.erased, is_stopped);
        // A read that has the old file open goes on with it.
        log.forget(first);
        match written {
            Ok(None) => Ok(false),
            Ok(Some(held)) => {
                self.segments.insert(first, Known { held: held.into(), failed_at: None });
                Ok(true)
            }
            Err(error) => {
                // The rewritten file may be in place despite the error.
                let held = held(log, first, positions).unwrap_or(known.held);
                self.segments.insert(first, Known { held, failed_at: Some(erased) });
                Err(error)
            }
        }
    }
}

/// Returns whether at least half of the events that a segment holds are erased.
fn is_worth_it(positions: u64, erased: u64, held: u64) -> bool {
    let gone = (erased + held).saturating_sub(positions);
    gone > 0 && gone * 2 >= held
}

/// The number of events that a segment holds.
fn held(log: &Log, first: u64, positions: u64) -> Result<u64, StoreError> {
    let header = Segment::open(&*log.files, first)?.header;
    Ok(header.rewritten.map_or(positions, |rewritten| rewritten.events.into()))
}

/// The first and last positions of the segments that have a run and a position in this container.
fn segments_of(
    log: &Log,
    view: &View,
    container: u64,
) -> Result<Vec<RangeInclusive<u64>>, StoreError> {
    let range = positions_of(container);
    let mut found = Vec::new();
    let mut position = (*range.start()).max(1);
    while position <= *range.end()
        && let Some(run) = view.tables.run_of(position)
    {
        let segment = segment_at(log, run, position)?;
        position = segment.end() + 1;
        found.push(segment);
    }
    Ok(found)
}

fn segment_at(log: &Log, run: &Run, position: u64) -> Result<RangeInclusive<u64>, StoreError> {
    let first = run
        .at_or_before(&log.cache, &key::names(position))?
        .and_then(|entry| key::segment_of_names(entry.key()))
        .ok_or_else(|| run.damaged(0))?;
    let next = run.at_or_after(&log.cache, &key::names(position + 1))?;
    let next = next.and_then(|entry| key::segment_of_names(entry.key()));
    Ok(first..=next.map_or(run.header.last, |next| next - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_rewritten_when_half_of_what_it_holds_is_erased() {
        assert!(!is_worth_it(100, 49, 100));
        assert!(is_worth_it(100, 50, 100));
        assert!(is_worth_it(100, 100, 100));
        // Fifty were left out before. Of the other fifty, 24 or 25 are erased.
        assert!(!is_worth_it(100, 74, 50));
        assert!(is_worth_it(100, 75, 50));
        // All were left out.
        assert!(!is_worth_it(100, 100, 0));
        assert!(!is_worth_it(100, 90, 10));
    }
}
