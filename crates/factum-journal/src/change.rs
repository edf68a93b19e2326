//! Truncation and retention.

use std::ops::Range;

use factum_backend::partition_point;
use factum_kernel::{
    ChangeError, Direction, Retention, StoreError, StreamChange, StreamId, StreamInfo,
    StreamVersion, Timestamp,
};

use crate::{append::Committer, facts::LogFacts, log::Log, record::StreamState};

impl Committer {
    /// Makes a change, and returns the information about the stream after it.
    pub(crate) fn change(
        &mut self,
        stream: &StreamId,
        change: StreamChange,
    ) -> Result<StreamInfo, ChangeError> {
        let log = self.log.clone();
        let view = log.view();
        let mut facts = LogFacts::new(&log, &view);
        let before = facts.state(stream)?;
        let after = changed(&mut facts, stream, before, change, self.clock.now())?;
        let is_news = after != before;
        if is_news {
            self.store_changes(vec![(stream.clone(), after)])?;
        }
        // If the change is made and only the answer can't be read, the error must not deny the
        // change.
        info(&log, stream).map_err(|error| match is_news {
            true => ChangeError::Indeterminate(error),
            false => ChangeError::Store(error),
        })
    }
}

fn changed(
    facts: &mut LogFacts<'_>,
    stream: &StreamId,
    before: StreamState,
    change: StreamChange,
    now: Timestamp,
) -> Result<StreamState, ChangeError> {
    let mut state = before;
    let bounds = &mut state.bounds;
    change.check(bounds.version)?;
    match change {
        StreamChange::Retain(retention) => {
            state.retention = retention;
            let through = retain(facts, stream, &state, now)?;
            state.bounds.erased_through = through.max(before.bounds.erased_through);
        }
        StreamChange::TruncateBefore(first) => {
            bounds.erased_through = bounds.erased_through.max(first.previous());
        }
        // A change of a later version of the kernel, which this store can't make.
        other => {
            let message = format!("the journal can't do this change: change={other:?}");
            return Err(StoreError::invalid(message).into());
        }
    }
    Ok(state)
}

/// The version up to which a stream's retention erases. The last event always stays.
pub(crate) fn retain(
    facts: &LogFacts<'_>,
    stream: &StreamId,
    state: &StreamState,
    now: Timestamp,
) -> Result<StreamVersion, StoreError> {
    let Retention { events_max, age_max } = state.retention;
    let version = state.bounds.version.value();
    let by_count = events_max.map_or(0, |max| version.saturating_sub(max));
    let by_age = match age_max {
        None => 0,
        Some(age) => {
            let first = state.bounds.erased_through.value() + 1;
            let kept = first..(version + 1).max(first);
            first_since(facts, stream, kept, now.saturating_sub(age))? - 1
        }
    };
    let through = by_count.max(by_age).min(version.saturating_sub(1));
    Ok(StreamVersion::new(through))
}

/// The first of these versions of a stream whose event was recorded at or after a time; their end
/// if there is none. Times never decrease, so a binary search reads few events.
fn first_since(
    facts: &LogFacts<'_>,
    stream: &StreamId,
    versions: Range<u64>,
    time: Timestamp,
) -> Result<u64, StoreError> {
    let LogFacts { log, view, .. } = facts;
    partition_point(versions.start, versions.end, |version| {
        let tables = &view.tables;
        let forward = Direction::Forward;
        let found = tables.stream_positions(&log.cache, stream.as_str(), version, forward, 1)?;
        match found.first() {
            Some(position) => Ok(log.recorded_at(view, *position)? >= time),
            // The event is in the group that is being stored.
            None => Ok(true),
        }
    })
}

/// The information about a stream: its bounds, its retention and its times.
pub(crate) fn info(log: &Log, stream: &StreamId) -> Result<StreamInfo, StoreError> {
    let (view, state) = log.view_with(stream)?;
    let bounds = state.bounds;
    let at = |version: StreamVersion| -> Result<Option<Timestamp>, StoreError> {
        if bounds.erased_through >= bounds.version {
            return Ok(None);
        }
        let tables = &view.tables;
        let cache = &log.cache;
        let stream = stream.as_str();
        let version = version.value();
        let found = tables.stream_positions(cache, stream, version, Direction::Forward, 1)?;
        let position = found.first().filter(|position| **position <= view.head);
        position.map(|position| log.recorded_at(&view, *position)).transpose()
    };
    let times = (at(bounds.erased_through.next())?, at(bounds.version)?);
    Ok(StreamInfo::new(bounds).with_times(times.0, times.1).with_retention(state.retention))
}
