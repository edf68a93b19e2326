//! Truncation, retention, and what a deletion erases.

use factum_backend::PlannedEvent;
use factum_kernel::{
    ChangeError, Retention, StreamChange, StreamId, StreamInfo, StreamVersion, Timestamp,
};

use crate::log::Log;

/// Makes a change, and returns the information about the stream after it.
pub(crate) fn apply(
    log: &mut Log,
    stream: &StreamId,
    change: StreamChange,
    now: Timestamp,
) -> Result<StreamInfo, ChangeError> {
    let bounds = log.bounds(stream);
    change.check(bounds.version)?;
    match change {
        StreamChange::Retain(retention) => {
            log.streams.entry(stream.clone()).or_default().retention = retention;
            retain(log, stream, now);
        }
        StreamChange::TruncateBefore(first) => log.erase_through(stream, first.previous()),
        // A change of a later version of the kernel, which this store can't make.
        other => {
            let message = format!("the memory store can't do this change: change={other:?}");
            return Err(factum_kernel::StoreError::invalid(message).into());
        }
    }
    Ok(log.info(stream))
}

/// Erases the events before a deletion, whose own event is in the log.
pub(crate) fn delete(log: &mut Log, deletion: &PlannedEvent<'_>) {
    let version = deletion.header.version;
    if let Some(entry) = log.streams.get_mut(deletion.stream) {
        entry.deleted_at = version;
    }
    log.erase_through(deletion.stream, version.previous());
}

/// Erases the events that a stream's retention no longer keeps. The last event always stays.
pub(crate) fn retain(log: &mut Log, stream: &StreamId, now: Timestamp) {
    let Some(entry) = log.streams.get(stream) else { return };
    let Retention { events_max, age_max } = entry.retention;
    let version = entry.bounds().version.value();
    let by_count = events_max.map_or(0, |max| version.saturating_sub(max));
    let by_age = age_max.map_or(0, |age| {
        let oldest = now.saturating_sub(age);
        let is_old =
            |position: &&_| log.event(**position).is_some_and(|e| e.recorded_at() < oldest);
        entry.erased_through.value() + entry.kept().iter().take_while(is_old).count() as u64
    });
    let through = by_count.max(by_age).min(version.saturating_sub(1));
    log.erase_through(stream, StreamVersion::new(through));
}
