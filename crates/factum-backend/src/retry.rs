//! How a batch that comes again is recognised: by its event ids, in the streams that it writes.
//!
//! A store finds the events of a stream by their versions anyway, so that no index over ids is
//! needed; see docs/design/0001.

use std::collections::{HashMap, HashSet};

use factum_core::{
    AppendBatch, Appended, EventId, ExpectedVersion, RETRY_WINDOW, StoreError, StreamId,
    StreamVersion, Timestamp,
};

use crate::{facts::FoundEvent, plan::Planner};

/// What is known of a batch that may have been stored already.
pub(crate) enum Finding {
    /// It was; this is the answer it got then.
    Stored(Appended),
    /// It can be neither answered nor stored.
    Refused(StoreError),
    /// None of its events is there.
    Unknown,
}

/// Looks for the events of a batch, in the store and in the group so far.
pub(crate) fn find<'g>(
    planner: &mut Planner<'g, '_>,
    batch: &'g AppendBatch,
) -> Result<Finding, StoreError> {
    let now = planner.end.now;
    let Some(since) = window_start(batch, now) else {
        return Ok(if batch.is_repeated() { outside_window(batch, now) } else { Finding::Unknown });
    };
    let mut found = Vec::new();
    for (stream, ids) in ids_by_stream(batch) {
        found.extend(planner.facts.find_ids(stream, &ids, since)?);
        let planned = ids.into_iter().filter_map(|id| {
            let planned = planner.planned(id)?;
            (planned.stream == stream).then_some(FoundEvent {
                id,
                position: planned.header.position,
                version: planned.header.version,
                recorded_at: planned.header.recorded_at,
            })
        });
        found.extend(planned.collect::<Vec<_>>());
    }
    if found.is_empty() && batch.is_repeated() {
        return erased(planner, batch);
    }
    Ok(judge(batch, found))
}

/// The ids of a batch by stream: one that is written several times is searched once.
fn ids_by_stream(batch: &AppendBatch) -> Vec<(&StreamId, Vec<EventId>)> {
    let mut places = HashMap::with_capacity(batch.writes().len());
    let mut streams: Vec<(_, Vec<_>)> = Vec::with_capacity(batch.writes().len());
    for write in batch.writes() {
        let place = *places.entry(&write.stream).or_insert(streams.len());
        if place == streams.len() {
            streams.push((&write.stream, Vec::with_capacity(write.events.len())));
        }
        streams[place].1.extend(write.events.iter().map(|event| event.id));
    }
    streams
}

/// A repeated batch of which nothing is there. If events behind the version that it expected are
/// gone, it may have been among them.
fn erased<'g>(
    planner: &mut Planner<'g, '_>,
    batch: &'g AppendBatch,
) -> Result<Finding, StoreError> {
    for write in batch.writes() {
        let expected = match write.expected {
            ExpectedVersion::Exact(version) => version,
            ExpectedVersion::NoStream => StreamVersion::ZERO,
            ExpectedVersion::Any | ExpectedVersion::StreamExists => continue,
        };
        let bounds = planner.bounds(&write.stream)?;
        if bounds.erased_through > expected {
            return Ok(Finding::Refused(StoreError::invalid(format!(
                "the batch may have been stored and its events erased since, load the stream to \
                 see: stream={} expected={expected} erased_through={}",
                write.stream, bounds.erased_through
            ))));
        }
    }
    Ok(Finding::Unknown)
}

/// From when on events of the batch may have been recorded; `None` outside of the window.
///
/// The writer's clock may be ahead of the store's, so the search begins a window earlier than
/// the id says.
fn window_start(batch: &AppendBatch, now: Timestamp) -> Option<Timestamp> {
    let first = batch.events().next()?;
    let made_at = first.id.time().unwrap_or(now);
    let is_open =
        now <= made_at.saturating_add(RETRY_WINDOW) && made_at <= now.saturating_add(RETRY_WINDOW);
    is_open.then(|| made_at.min(now).saturating_sub(RETRY_WINDOW))
}

fn judge(batch: &AppendBatch, mut found: Vec<FoundEvent>) -> Finding {
    if found.is_empty() {
        return Finding::Unknown;
    }
    // Without the mark a batch may have been stored twice; the first time is the one that counts.
    found.sort_by_key(|event| event.position);
    let mut seen = HashSet::with_capacity(found.len());
    found.retain(|event| seen.insert(event.id));
    // A batch is stored in one piece, so its events stand one behind another in its order.
    let same = found.len() == batch.event_count()
        && found.iter().zip(batch.events()).all(|(found, event)| found.id == event.id)
        && found.windows(2).all(|pair| pair[0].position.next() == pair[1].position);
    if !same {
        return Finding::Refused(StoreError::invalid(format!(
            "some event ids of the batch are stored already, but not this batch: id={} position={}",
            found[0].id, found[0].position
        )));
    }
    let first = found[0];
    let versions = last_versions(batch, &found);
    let answer = Appended::new(first.position, versions.into(), first.recorded_at);
    Finding::Stored(answer.with_events(found.len()).replayed())
}

fn last_versions(batch: &AppendBatch, found: &[FoundEvent]) -> Vec<StreamVersion> {
    let ends = batch.writes().iter().scan(0, |end, write| {
        *end += write.events.len();
        Some(*end)
    });
    ends.map(|end| found[end - 1].version).collect()
}

fn outside_window(batch: &AppendBatch, now: Timestamp) -> Finding {
    let id = batch.events().next().map(|event| event.id.to_string()).unwrap_or_default();
    Finding::Refused(StoreError::invalid(format!(
        "the batch is repeated outside of the retry window, read its stream to learn whether it \
         was stored, and see that the writer's clock is right: window_s={} id={id} now={now}",
        RETRY_WINDOW.as_secs()
    )))
}
