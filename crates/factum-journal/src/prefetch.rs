//! The prefetch of an append: reads the parts of the disk and the index that the writer will need,
//! before the batch is queued.

use factum_backend::{Looked, Precheck, Prechecks, Walk};
use factum_kernel::{
    AppendBatch, AppendCondition, Direction, Position, Scope, StoreError, StreamId,
};

use crate::{
    facts::LogFacts,
    log::Log,
    read::{CandidateQuery, candidates},
};

/// The looks into the index in one step of a precheck: a few milliseconds, during which the writer
/// may wait for the index of the active segment.
const STEP_LOOKS: usize = 1 << 15;

/// Returns whether the plan of a batch would read the disk for its streams. Looks only into memory.
pub(crate) fn needs_disk(log: &Log, batch: &AppendBatch) -> bool {
    if streams(batch).all(|stream| log.hot.has(stream.as_str())) {
        return false;
    }
    log.peek(|view| streams(batch).any(|it| view.tables.needs_disk(&log.cache, it.as_str())))
}

/// Reads the states of a batch's streams, so that they are in memory when the writer plans the
/// batch.
pub(crate) fn prefetch(log: &Log, batch: &AppendBatch) -> Result<(), StoreError> {
    let view = log.view();
    let mut facts = LogFacts::new(log, &view);
    streams(batch).try_for_each(|stream| facts.state(stream).map(|_| ()))
}

/// Returns whether the conditions of a batch are too many for the writer to check, or reach back
/// before the index in memory.
pub(crate) fn is_worth_prechecking(log: &Log, batch: &AppendBatch) -> bool {
    if batch.conditions().is_empty() {
        return false;
    }
    let (head, in_runs) = log.peek(|view| {
        let last = view.tables.runs.last().map_or(0, |run| run.header.last);
        (Position::new(view.head), Position::new(last))
    });
    let is_old = |condition: &AppendCondition| condition.after < in_runs;
    Prechecks::is_worth_it(batch, head) || batch.conditions().iter().any(is_old)
}

/// Continues the precheck of a batch's conditions.
pub(crate) fn precheck(
    log: &Log,
    batch: &AppendBatch,
    mut precheck: Precheck,
) -> Result<Precheck, StoreError> {
    let view = log.view();
    let mut looks = STEP_LOOKS;
    precheck.step(batch, Position::new(view.head), |condition, after| {
        let scope = Scope::Query(condition.fail_if_events_match.clone());
        let walk = Walk { from: after.value().saturating_add(1), direction: Direction::Forward };
        let query = CandidateQuery { scope: &scope, walk, positions_max: 1 };
        let found = candidates(log, &view, &query, &mut looks)?;
        Ok::<_, StoreError>(match (found.positions.first(), found.through) {
            (Some(position), _) => Looked::Found(Position::new(*position)),
            (None, Some(through)) => Looked::Paused(Position::new(through)),
            (None, None) => Looked::Clear,
        })
    })?;
    Ok(precheck)
}

fn streams(batch: &AppendBatch) -> impl Iterator<Item = &StreamId> {
    let written = batch.writes().iter().map(|write| &write.stream);
    written.chain(batch.checks().iter().map(|check| &check.stream))
}
