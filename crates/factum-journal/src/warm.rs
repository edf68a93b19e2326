//! What the writer will ask of the disk for a batch, asked before the batch is queued.

use factum_backend::Facts;
use factum_core::{AppendBatch, AppendCondition, StoreError, StreamId};

use crate::{facts::LogFacts, log::Log};

/// Whether the plan of a batch would read the disk; a look into memory only.
pub(crate) fn needs_disk(log: &Log, batch: &AppendBatch) -> bool {
    if batch.conditions().is_empty() && streams(batch).all(|stream| log.hot.has(stream.as_str())) {
        return false;
    }
    log.peek(|view| {
        let Some(run) = view.tables.runs.last() else { return false };
        // A condition on what is older than memory asks the runs.
        let is_old = |condition: &AppendCondition| condition.after.value() < run.header.last;
        batch.conditions().iter().any(is_old)
            || streams(batch).any(|stream| view.tables.needs_disk(&log.cache, stream.as_str()))
    })
}

/// Asks what the plan of a batch will ask, so that the answers are in memory.
pub(crate) fn warm(log: &Log, batch: &AppendBatch) -> Result<(), StoreError> {
    let view = log.view();
    let mut facts = LogFacts::new(log, &view);
    for stream in streams(batch) {
        facts.state(stream)?;
    }
    batch.conditions().iter().try_for_each(|condition| facts.first_match(condition).map(|_| ()))
}

fn streams(batch: &AppendBatch) -> impl Iterator<Item = &StreamId> {
    let written = batch.writes().iter().map(|write| &write.stream);
    written.chain(batch.checks().iter().map(|check| &check.stream))
}
