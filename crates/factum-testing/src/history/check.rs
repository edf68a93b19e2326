//! The comparison of the attempts with the log.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use factum_kernel::{
    Appended, EventId, NewEvent, Page, Position, RecordedEvent, StreamId, StreamVersion, Tag,
};

use super::{Reader, Records, Summary, Tried, Violation};
use crate::scope::in_scope;

/// The content of the log, collected from its pages.
struct Found<'a> {
    by_position: BTreeMap<Position, &'a RecordedEvent>,
    by_id: HashMap<EventId, &'a RecordedEvent>,
    erased: BTreeSet<Position>,
}

pub(super) fn check(records: &Records, pages: &[Page]) -> Result<Summary, Violation> {
    let found = collect(pages)?;
    check_streams(records, &found)?;
    let mut summary = Summary {
        events: found.by_position.len() as u64,
        erased: found.erased.len() as u64,
        ..Summary::default()
    };
    let streams: BTreeSet<_> = found.by_position.values().map(|event| event.stream()).collect();
    summary.streams = streams.len();
    let mut known: HashMap<EventId, &Tried> = HashMap::new();
    for tried in records.batches.values() {
        check_batch(records, &found, tried, &mut summary)?;
        known.extend(tried.batch.events().map(|event| (event.id, tried)));
    }
    for event in found.by_position.values() {
        let Place { stream, position, id } = Place::of(event);
        match known.get(&event.id()) {
            None => return Err(Violation::Invented { stream, position, id }),
            Some(tried) if tried.acknowledged.is_none() && tried.open == 0 => {
                return Err(Violation::StoredAlthoughFailed { stream, position, id });
            }
            Some(_) => {}
        }
    }
    for (reader, seen) in &records.readers {
        check_reader(reader, seen, &found)?;
    }
    for (recipient, seen) in &records.consumers {
        recipient.check(seen, found.by_position.values().copied())?;
    }
    Ok(summary)
}

/// The place of an event, for the text of a violation.
struct Place {
    stream: StreamId,
    position: Position,
    id: EventId,
}

impl Place {
    fn of(event: &RecordedEvent) -> Self {
        let stream = event.stream().to_stream_id();
        Self { stream, position: event.position(), id: event.id() }
    }
}

/// Collects the pages, and checks that events and erased ranges together have the positions 1, 2,
/// 3, ...; that times never decrease; and that no id occurs twice.
fn collect(pages: &[Page]) -> Result<Found<'_>, Violation> {
    let mut found =
        Found { by_position: BTreeMap::new(), by_id: HashMap::new(), erased: BTreeSet::new() };
    for pair in pages.windows(2) {
        if pair[0].lineage != pair[1].lineage {
            return Err(Violation::Lineage);
        }
    }
    let mut last_event: Option<&RecordedEvent> = None;
    for event in pages.iter().flat_map(|page| &page.events) {
        let Place { stream, position, id } = Place::of(event);
        if let Some(twice) = found.by_id.insert(id, event) {
            return Err(Violation::Doubled { first: twice.position(), second: position, id });
        }
        if let Some(last) = last_event.replace(event) {
            if last.position() >= position {
                return Err(Violation::PositionGap { last: last.position(), next: position });
            }
            if last.recorded_at() > event.recorded_at() {
                return Err(Violation::TimeWentBack { stream, position, id });
            }
        }
        found.by_position.insert(position, event);
    }
    for range in pages.iter().flat_map(|page| &page.erased) {
        found.erased.extend((range.first.value()..=range.last.value()).map(Position::new));
    }
    check_positions(&found, pages)?;
    Ok(found)
}

fn check_positions(found: &Found<'_>, pages: &[Page]) -> Result<(), Violation> {
    let mut covered: Vec<Position> =
        found.by_position.keys().chain(&found.erased).copied().collect();
    covered.sort_unstable();
    let mut last = Position::ZERO;
    for next in covered {
        if next != last.next() {
            return Err(Violation::PositionGap { last, next });
        }
        last = next;
    }
    match pages.last() {
        Some(page) if last != page.head || page.scanned_through != page.head => {
            let scanned_through = last.min(page.scanned_through);
            Err(Violation::Unfinished { scanned_through, head: page.head })
        }
        _ => Ok(()),
    }
}

/// Checks that each stream has the versions 1, 2, 3, ...; if events may be gone, that versions
/// increase.
fn check_streams(records: &Records, found: &Found<'_>) -> Result<(), Violation> {
    let mut versions: BTreeMap<StreamId, StreamVersion> = BTreeMap::new();
    for event in found.by_position.values() {
        let Place { stream, position, .. } = Place::of(event);
        let last = versions.insert(stream.clone(), event.version()).unwrap_or_default();
        let next = event.version();
        let follows = next == last.next();
        let may_jump = records.changed.contains(&stream) && next > last;
        if !follows && !may_jump {
            return Err(Violation::VersionGap { stream, last, next, position });
        }
    }
    Ok(())
}

fn check_batch(
    records: &Records,
    found: &Found<'_>,
    tried: &Tried,
    summary: &mut Summary,
) -> Result<(), Violation> {
    let there: Vec<&RecordedEvent> =
        tried.batch.events().filter_map(|new| found.by_id.get(&new.id).copied()).collect();
    match (&tried.acknowledged, tried.open) {
        (Some(told), _) => {
            summary.acknowledged += 1;
            check_acknowledged(records, found, tried, told)?;
        }
        // Events of a failed batch are reported at their positions.
        (None, 0) => summary.failed += 1,
        (None, _) if there.is_empty() => summary.unknown_absent += 1,
        (None, _) => {
            summary.unknown_stored += 1;
            check_whole(records, found, tried, there[0])?;
        }
    }
    let new: HashMap<EventId, (&StreamId, &NewEvent)> =
        with_streams(tried).map(|(stream, event)| (event.id, (stream, event))).collect();
    for event in there {
        let (stream, appended) = new[&event.id()];
        check_content(event, stream, appended)?;
    }
    Ok(())
}

fn with_streams(tried: &Tried) -> impl Iterator<Item = (&StreamId, &NewEvent)> {
    tried
        .batch
        .writes()
        .iter()
        .flat_map(|write| write.events.iter().map(move |event| (&write.stream, event)))
}

/// Checks that every event is where its writer was told, or gone with a change of its stream.
fn check_acknowledged(
    records: &Records,
    found: &Found<'_>,
    tried: &Tried,
    told: &Appended,
) -> Result<(), Violation> {
    let mut position = told.first;
    for (write, last) in tried.batch.writes().iter().zip(&told.versions) {
        let count = write.events.len() as u64;
        for (at, new) in (1..).zip(&write.events) {
            let told_version = StreamVersion::new(last.value() + at - count);
            let stream = write.stream.clone();
            let id = new.id;
            match found.by_id.get(&id) {
                Some(event) if event.position() == position && event.version() == told_version => {}
                Some(event) => {
                    return Err(Violation::Misplaced {
                        stream,
                        told: position,
                        told_version,
                        position: event.position(),
                        version: event.version(),
                        id,
                    });
                }
                None if found.erased.contains(&position) && records.changed.contains(&stream) => {}
                None => return Err(Violation::Lost { stream, position, id }),
            }
            position = position.next();
        }
    }
    Ok(())
}

/// Checks that all events of the batch are neighbours in its order, or gone with their streams.
fn check_whole(
    records: &Records,
    found: &Found<'_>,
    tried: &Tried,
    first: &RecordedEvent,
) -> Result<(), Violation> {
    let events: Vec<_> = with_streams(tried).collect();
    let offset = events.iter().position(|(_, new)| new.id == first.id()).unwrap_or(0) as u64;
    let start = first.position().value().saturating_sub(offset);
    let in_place = (start..).zip(&events).filter(|(position, (stream, new))| {
        let position = Position::new(*position);
        match found.by_position.get(&position) {
            Some(event) => event.id() == new.id,
            None => found.erased.contains(&position) && records.changed.contains(*stream),
        }
    });
    let stored = in_place.count();
    if stored == events.len() {
        return Ok(());
    }
    let position = first.position();
    let first_id = events[0].1.id;
    Err(Violation::Torn { stored, events: events.len(), position, first_id })
}

fn check_content(
    event: &RecordedEvent,
    stream: &StreamId,
    new: &NewEvent,
) -> Result<(), Violation> {
    let equal = [
        ("the stream", event.stream() == *stream),
        ("the name", event.name() == new.name.as_str()),
        ("the schema version", event.schema_version() == new.schema_version),
        ("the content", event.content() == new.content),
        ("the payload", event.payload() == &new.payload[..]),
        ("a tag", event.tags().eq(new.tags.iter().map(Tag::as_str))),
        ("the metadata", event.metadata() == new.metadata),
    ];
    match equal.iter().find(|(_, equal)| !equal) {
        None => Ok(()),
        Some((what, _)) => {
            let Place { stream, position, id } = Place::of(event);
            Err(Violation::Altered { what, stream, position, id })
        }
    }
}

/// Checks that the events came in order, are equal to the log's, and that none of the scope is
/// missing between the first and the last.
fn check_reader(
    reader: &Reader,
    seen: &[RecordedEvent],
    found: &Found<'_>,
) -> Result<(), Violation> {
    let name = || reader.name.to_string();
    for pair in seen.windows(2) {
        let last = pair[0].position();
        let next = pair[1].position();
        if next <= last {
            return Err(Violation::ReaderOutOfOrder { reader: name(), last, next });
        }
    }
    let (Some(first), Some(last)) = (seen.first(), seen.last()) else { return Ok(()) };
    let given: BTreeSet<Position> = seen.iter().map(RecordedEvent::position).collect();
    for event in seen {
        let is_there = match found.by_position.get(&event.position()) {
            Some(there) => *there == event,
            // The reader got it before it was erased.
            None => found.erased.contains(&event.position()),
        };
        if !is_there || !in_scope(&reader.scope, event) {
            let Place { stream, position, id } = Place::of(event);
            return Err(Violation::ReaderSawOther { reader: name(), stream, position, id });
        }
    }
    let between = found.by_position.range(first.position()..=last.position());
    for (position, event) in between {
        if in_scope(&reader.scope, event) && !given.contains(position) {
            let Place { stream, position, id } = Place::of(event);
            return Err(Violation::ReaderMissed { reader: name(), stream, position, id });
        }
    }
    Ok(())
}
