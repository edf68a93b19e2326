//! Truncation, deletion and retention.

use factum_core::{
    AppendError, Direction, Retention, StoreError, StreamChange, StreamId, StreamInfo,
    StreamVersion, Timestamp, VersionConflict,
};

use crate::{
    append::Committer,
    facts::LogFacts,
    log::{Log, Taken},
    record::StreamState,
};

/// Events that are looked at together in the search for the first that is not too old.
const SEARCH_STEP: usize = 256;

impl Committer {
    /// Does a change, and tells how the stream is then.
    pub(crate) fn change(
        &mut self,
        stream: &StreamId,
        change: StreamChange,
    ) -> Result<StreamInfo, AppendError> {
        let log = self.log.clone();
        let view = log.view();
        let mut facts = LogFacts::new(&log, &view);
        let before = facts.state(stream)?;
        let after = changed(&mut facts, (stream, before), change, self.clock.now())?;
        let is_news = after != before;
        if is_news {
            self.store_changes(vec![(stream.clone(), after)]).map_err(|e| match e {
                factum_backend::CommitError::NotStored(error) => AppendError::Store(error),
                factum_backend::CommitError::Unknown(error) => AppendError::Indeterminate(error),
            })?;
        }
        // Where the change is done and the answer can't be read, it must not say that it is not.
        info(&log, stream).map_err(|error| match is_news {
            true => AppendError::Indeterminate(error),
            false => AppendError::Store(error),
        })
    }
}

fn changed(
    facts: &mut LogFacts<'_>,
    (stream, before): (&StreamId, StreamState),
    change: StreamChange,
    now: Timestamp,
) -> Result<StreamState, AppendError> {
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
        StreamChange::Delete(expected) => {
            if !bounds.matches(expected) {
                let (stream, actual) = (stream.clone(), bounds.version);
                return Err(VersionConflict { stream, expected, actual }.into());
            }
            if bounds.version > StreamVersion::ZERO && !bounds.is_deleted() {
                // A deletion takes a version, so that whoever loaded before it conflicts.
                bounds.version = bounds.version.next();
                (bounds.deleted_at, bounds.erased_through) = (bounds.version, bounds.version);
            }
        }
        // A change of a later version of the kernel, which this store can't do.
        other => {
            let message = format!("the journal can't do this change: change={other:?}");
            return Err(StoreError::invalid(message).into());
        }
    }
    Ok(state)
}

/// Up to which version a stream's retention erases. The last event stays.
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
            let erased = state.bounds.erased_through.value();
            erased + count_older(facts, stream, erased + 1, now.saturating_sub(age))?
        }
    };
    let through = by_count.max(by_age).min(version.saturating_sub(1));
    Ok(StreamVersion::new(through))
}

/// How many of the stored events of a stream, from a version on, were recorded before a time.
fn count_older(
    facts: &LogFacts<'_>,
    stream: &StreamId,
    first: u64,
    oldest: Timestamp,
) -> Result<u64, StoreError> {
    let LogFacts { log, view, .. } = facts;
    let mut count = 0;
    loop {
        let positions = view.tables.stream_positions(
            &log.cache,
            stream.as_str(),
            first + count,
            Direction::Forward,
            SEARCH_STEP,
        )?;
        let newer = log.read_events(view, &positions, Direction::Forward, |event, _| {
            let is_old = event.header.recorded_at < oldest;
            count += u64::from(is_old);
            Ok(if is_old { Taken::More } else { Taken::Full })
        })?;
        if newer.is_some() || positions.len() < SEARCH_STEP {
            return Ok(count);
        }
    }
}

/// How a stream is, and since when.
pub(crate) fn info(log: &Log, stream: &StreamId) -> Result<StreamInfo, StoreError> {
    let (view, state) = log.view_with(stream)?;
    let bounds = state.bounds;
    let at = |version: StreamVersion| -> Result<Option<Timestamp>, StoreError> {
        if bounds.erased_through >= bounds.version {
            return Ok(None);
        }
        let (tables, cache) = (&view.tables, &log.cache);
        let (stream, version) = (stream.as_str(), version.value());
        let found = tables.stream_positions(cache, stream, version, Direction::Forward, 1)?;
        let position = found.first().filter(|position| **position <= view.head);
        position.map(|position| log.recorded_at(&view, *position)).transpose()
    };
    let times = (at(bounds.erased_through.next())?, at(bounds.version)?);
    Ok(StreamInfo::new(bounds).with_times(times.0, times.1).with_retention(state.retention))
}
