//! What the writer will ask of the disk and of the index for a batch, asked before the batch is
//! queued.

use factum_backend::{Foreseen, Looked, Outlook};
use factum_kernel::{
    AppendBatch, AppendCondition, Direction, Position, Scope, StoreError, StreamId,
};

use crate::{facts::LogFacts, log::Log, read::candidates};

/// Looks into the index that one step at the conditions of a batch takes: a few milliseconds, in
/// which the writer may wait for the index of the active segment.
const STEP_LOOKS: usize = 1 << 15;

/// Whether the plan of a batch would read the disk for its streams; a look into memory only.
pub(crate) fn needs_disk(log: &Log, batch: &AppendBatch) -> bool {
    if streams(batch).all(|stream| log.hot.has(stream.as_str())) {
        return false;
    }
    log.peek(|view| streams(batch).any(|it| view.tables.needs_disk(&log.cache, it.as_str())))
}

/// Asks what the plan of a batch will ask of its streams, so that the answers are in memory.
pub(crate) fn warm(log: &Log, batch: &AppendBatch) -> Result<(), StoreError> {
    let view = log.view();
    let mut facts = LogFacts::new(log, &view);
    streams(batch).try_for_each(|stream| facts.state(stream).map(|_| ()))
}

/// Whether the conditions of a batch are more than the writer should look at, or older than what
/// memory knows.
pub(crate) fn is_worth_foreseeing(log: &Log, batch: &AppendBatch) -> bool {
    if batch.conditions().is_empty() {
        return false;
    }
    let (head, in_runs) = log.peek(|view| {
        let last = view.tables.runs.last().map_or(0, |run| run.header.last);
        (Position::new(view.head), Position::new(last))
    });
    let is_old = |condition: &AppendCondition| condition.after < in_runs;
    Foreseen::is_worth_it(batch, head) || batch.conditions().iter().any(is_old)
}

/// Goes on with the look at the conditions of a batch.
pub(crate) fn foresee(
    log: &Log,
    batch: &AppendBatch,
    mut outlook: Outlook,
) -> Result<Outlook, StoreError> {
    let view = log.view();
    let mut looks = STEP_LOOKS;
    outlook.step(batch, Position::new(view.head), |condition, after| {
        let scope = Scope::Query(condition.fail_if_events_match.clone());
        let at = (after.value().saturating_add(1), Direction::Forward);
        let found = candidates(log, &view, &scope, at, (1, &mut looks))?;
        Ok::<_, StoreError>(match (found.positions.first(), found.through) {
            (Some(position), _) => Looked::Found(Position::new(*position)),
            (None, Some(through)) => Looked::Paused(Position::new(through)),
            (None, None) => Looked::Clear,
        })
    })?;
    Ok(outlook)
}

fn streams(batch: &AppendBatch) -> impl Iterator<Item = &StreamId> {
    let written = batch.writes().iter().map(|write| &write.stream);
    written.chain(batch.checks().iter().map(|check| &check.stream))
}
