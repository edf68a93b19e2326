//! The recognition of a repeated batch: by its event ids, in the streams that it writes.
//!
//! A store finds the events of a stream by their versions anyway, so no index of ids is needed; see
//! docs/design/0001.

use std::collections::{BTreeMap, HashMap};

use factum_kernel::{
    AppendBatch, Appended, ErasedRange, EventId, ExpectedVersion, Position, RETRY_WINDOW,
    StoreError, StreamBounds, StreamId, StreamVersion, Timestamp,
};

use crate::{
    facts::{FoundEvent, Span},
    plan::Planner,
};

/// The result of a search for a batch that may have been stored already.
pub(crate) enum Finding {
    /// The batch was stored; this is its first answer.
    Stored(Appended),
    /// The batch can be neither answered nor stored.
    Refused(StoreError),
    /// None of its events is there.
    Unknown,
}

/// An event of a batch that was found: its index in the batch, from 0, and the stored event.
struct Trace {
    place: usize,
    event: FoundEvent,
}

/// The events of a batch for one stream, which the batch may write several times.
struct Part<'g> {
    stream: &'g StreamId,
    /// The expected version of its first write.
    expected: ExpectedVersion,
    ids: Vec<EventId>,
    /// The index of each event in the batch, from 0.
    places: Vec<usize>,
}

impl Part<'_> {
    /// The version of its last event, if the batch was stored at the version that it expected.
    fn last(&self, expected: StreamVersion) -> StreamVersion {
        plus(expected, self.ids.len())
    }
}

/// Checks that a repetition of the batch could be recognised: the time in its first id is at most
/// [`RETRY_WINDOW`] ahead of the store's clock. For stores that plan a first attempt themselves.
///
/// # Errors
/// `Invalid` for a batch from a clock that is further ahead; set that clock right.
pub fn check_clock(batch: &AppendBatch, now: Timestamp) -> Result<(), StoreError> {
    let Some(id) = batch.events().next().map(|event| event.id) else { return Ok(()) };
    if id.time().is_none_or(|made_at| made_at <= now.saturating_add(RETRY_WINDOW)) {
        return Ok(());
    }
    Err(StoreError::invalid(format!(
        "the batch was made further ahead of the store's clock than the retry window, so that a \
         repetition would be stored again; set the writer's clock: window_s={} id={id} now={now}",
        RETRY_WINDOW.as_secs()
    )))
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
    if !batch.is_repeated() {
        let found = find_where_expected(planner, batch, since)?;
        return judge(planner, batch, &found);
    }
    let mut found = Vec::new();
    for part in &parts(batch) {
        found.extend(traces(planner, part, Span::since(since))?);
    }
    if found.is_empty() { erased(planner, batch) } else { judge(planner, batch, &found) }
}

/// The earliest time at which events of the batch may have been recorded; `None` after the window.
///
/// The writer's clock may be ahead of the store's by at most a window, so the search begins a
/// window before the time in the id.
fn window_start(batch: &AppendBatch, now: Timestamp) -> Option<Timestamp> {
    let made_at = batch.events().next()?.id.time().unwrap_or(now);
    let is_open = now <= made_at.saturating_add(RETRY_WINDOW);
    is_open.then(|| made_at.saturating_sub(RETRY_WINDOW))
}

/// Looks for the events of a batch that is not marked as repeated. It looks only at the places that
/// they have if the batch was stored: right after the version that it expected, and after the
/// positions in its conditions. Ordinary conflicts come here too, and a busy stream has many.
fn find_where_expected<'g>(
    planner: &mut Planner<'g, '_>,
    batch: &'g AppendBatch,
    since: Timestamp,
) -> Result<Vec<Trace>, StoreError> {
    let after = batch.conditions().iter().map(|condition| condition.after).max();
    let mut span = Span { after: after.unwrap_or(Position::ZERO), ..Span::since(since) };
    let mut found = Vec::new();
    let mut elsewhere = Vec::new();
    let mut is_absent = false;
    let parts = parts(batch);
    for part in &parts {
        let Some(expected) = exact(part.expected) else {
            elsewhere.push(part);
            continue;
        };
        let bounds = planner.bounds(part.stream)?;
        let first = plus(expected, 1);
        let last = part.last(expected);
        // A condition may name a position that no event had yet when the batch was stored.
        let here = traces(planner, part, Span { first, last, ..Span::since(since) })?;
        // Its last event would be there, and a batch is stored whole or not at all.
        is_absent |= here.is_empty() && bounds.erased_through < last;
        found.extend(here);
    }
    if is_absent && found.is_empty() {
        return Ok(found);
    }
    if let Some(Trace { place, event }) = found.first() {
        let before = event.position.value().saturating_sub(*place as u64 + 1);
        span = Span { after: Position::new(before), ..Span::since(event.recorded_at) };
    }
    for part in elsewhere {
        found.extend(traces(planner, part, span)?);
    }
    Ok(found)
}

/// The events of a batch for each stream, in the order in which the batch first writes them.
fn parts(batch: &AppendBatch) -> Vec<Part<'_>> {
    let mut known = HashMap::with_capacity(batch.writes().len());
    let mut parts: Vec<Part<'_>> = Vec::with_capacity(batch.writes().len());
    let mut places = 0..;
    for write in batch.writes() {
        let index = *known.entry(&write.stream).or_insert(parts.len());
        if index == parts.len() {
            let ids = Vec::new();
            let places = Vec::new();
            parts.push(Part { stream: &write.stream, expected: write.expected, ids, places });
        }
        parts[index].ids.extend(write.events.iter().map(|event| event.id));
        parts[index].places.extend(places.by_ref().take(write.events.len()));
    }
    parts
}

/// The events for one stream that are in a part of it.
fn traces<'g>(
    planner: &mut Planner<'g, '_>,
    part: &Part<'g>,
    span: Span,
) -> Result<Vec<Trace>, StoreError> {
    let mut found = planner.facts.find_ids(part.stream, &part.ids, span)?;
    found.extend(part.ids.iter().flat_map(|id| planner.planned(*id, part.stream)));
    found.retain(|event| span.contains(event));
    let place = |event: &FoundEvent| part.ids.iter().position(|id| *id == event.id);
    let traces = found.into_iter().filter_map(|event| Some((place(&event)?, event)));
    Ok(traces.map(|(place, event)| Trace { place: part.places[place], event }).collect())
}

/// Handles a repeated batch of which no event is there. If events after the version that it
/// expected were erased, it may have been among them.
fn erased<'g>(
    planner: &mut Planner<'g, '_>,
    batch: &'g AppendBatch,
) -> Result<Finding, StoreError> {
    for part in parts(batch) {
        let Some(expected) = exact(part.expected) else { continue };
        let bounds = planner.bounds(part.stream)?;
        if bounds.erased_through > expected {
            return Ok(Finding::Refused(StoreError::invalid(format!(
                "the batch may have been stored and its events erased since, load the stream to \
                 see: stream={} expected={expected} erased_through={}",
                part.stream, bounds.erased_through
            ))));
        }
    }
    Ok(Finding::Unknown)
}

/// The version that a write expects, if it expects a certain one.
fn exact(expected: ExpectedVersion) -> Option<StreamVersion> {
    match expected {
        ExpectedVersion::Exact(version) => Some(version),
        ExpectedVersion::NoStream => Some(StreamVersion::ZERO),
        ExpectedVersion::Any | ExpectedVersion::StreamExists => None,
    }
}

/// The version after this many events. A writer may expect any number, so the sum saturates.
fn plus(version: StreamVersion, count: usize) -> StreamVersion {
    StreamVersion::new(version.value().saturating_add(count as u64))
}

fn judge<'g>(
    planner: &mut Planner<'g, '_>,
    batch: &'g AppendBatch,
    found: &[Trace],
) -> Result<Finding, StoreError> {
    let Some(any) = found.first() else { return Ok(Finding::Unknown) };
    // A batch is stored in one piece, so the events of one copy agree on its beginning. Without the
    // mark, a batch may have been stored twice; the first copy counts.
    let mut copies: BTreeMap<u64, Vec<&Trace>> = BTreeMap::new();
    for trace in found {
        if let Some(first) = trace.event.position.value().checked_sub(trace.place as u64) {
            copies.entry(first).or_default().push(trace);
        }
    }
    for (first, copy) in copies {
        let first = Position::new(first);
        if first > Position::ZERO && is_whole(planner, batch.event_count(), first, &copy)? {
            let versions = last_versions(planner, batch, &copy)?;
            let answer = Appended::new(first, versions.into(), copy[0].event.recorded_at);
            return Ok(Finding::Stored(answer.with_events(batch.event_count()).replayed()));
        }
    }
    Ok(Finding::Refused(StoreError::invalid(format!(
        "some event ids of the batch are stored already, but not this batch: id={} position={}",
        any.event.id, any.event.position
    ))))
}

/// Returns whether all events of a copy were stored: those that are missing were erased.
fn is_whole(
    planner: &mut Planner<'_, '_>,
    count: usize,
    first: Position,
    copy: &[&Trace],
) -> Result<bool, StoreError> {
    let mut is_there = vec![false; count];
    copy.iter().for_each(|trace| is_there[trace.place] = true);
    let mut next = 0;
    for run in is_there.chunk_by(|a, b| a == b) {
        let from = next as u64;
        let through = (next + run.len() - 1) as u64;
        let positions = ErasedRange { first: first.plus(from), last: first.plus(through) };
        if !run[0] && !planner.are_erased(positions)? {
            return Ok(false);
        }
        next += run.len();
    }
    Ok(true)
}

/// The version of each written stream after its last write.
fn last_versions<'g>(
    planner: &mut Planner<'g, '_>,
    batch: &'g AppendBatch,
    copy: &[&Trace],
) -> Result<Vec<StreamVersion>, StoreError> {
    let mut versions = vec![StreamVersion::ZERO; batch.event_count()];
    for part in parts(batch) {
        let last = last_version(planner, &part, copy)?;
        for (place, later) in part.places.iter().rev().zip(0..) {
            versions[*place] = StreamVersion::new(last.value().saturating_sub(later));
        }
    }
    let ends = batch.writes().iter().scan(0, |end, write| {
        *end += write.events.len();
        Some(*end)
    });
    Ok(ends.map(|end| versions[end - 1]).collect())
}

/// The version of the last event for one stream.
fn last_version<'g>(
    planner: &mut Planner<'g, '_>,
    part: &Part<'g>,
    copy: &[&Trace],
) -> Result<StreamVersion, StoreError> {
    let is_of_part = |trace: &&&Trace| part.places.binary_search(&trace.place).is_ok();
    match copy.iter().find(is_of_part) {
        Some(Trace { place, event }) => {
            let later = part.places.iter().filter(|other| *other > place).count();
            Ok(plus(event.version, later))
        }
        None => Ok(last_erased(part, planner.bounds(part.stream)?)),
    }
}

/// The highest version that a batch can have got in a stream, if nothing of it is left there. The
/// stream has grown since, so a caller that expects this version gets a conflict.
fn last_erased(part: &Part<'_>, bounds: StreamBounds) -> StreamVersion {
    // A deletion takes a version without an event.
    let is_truncated = bounds.is_truncated();
    let last = if is_truncated { bounds.erased_through } else { bounds.deleted_at.previous() };
    exact(part.expected).map_or(last, |expected| part.last(expected).min(last))
}

fn outside_window(batch: &AppendBatch, now: Timestamp) -> Finding {
    let id = batch.events().next().map(|event| event.id.to_string()).unwrap_or_default();
    Finding::Refused(StoreError::invalid(format!(
        "the batch is repeated outside of the retry window, read its stream to learn whether it \
         was stored, and see that the writer's clock is right: window_s={} id={id} now={now}",
        RETRY_WINDOW.as_secs()
    )))
}
