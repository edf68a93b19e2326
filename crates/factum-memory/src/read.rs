//! The reading of one page.

use factum_backend::{PageBuilder, PageEnd, Pushed, partition_point};
use factum_kernel::{
    Direction, Page, Position, ReadFrom, ReadQuery, RecordedEvent, Scope, StoreError, StreamBounds,
    StreamVersion, Timestamp,
};

use crate::log::{Log, Stream};

pub(crate) fn page(log: &Log, query: &ReadQuery) -> Result<Page, StoreError> {
    query.check()?;
    match &query.scope {
        Scope::Stream(stream) => {
            let entry = log.streams.get(stream);
            let bounds = entry.map_or_else(StreamBounds::default, Stream::bounds);
            let kept = entry.map_or(&[][..], Stream::kept);
            let start = stream_start(log, query, kept, bounds);
            match query.direction {
                Direction::Forward => scan(log, query, kept[start..].iter().copied(), Some(bounds)),
                Direction::Backward => {
                    scan(log, query, kept[..start].iter().rev().copied(), Some(bounds))
                }
            }
        }
        _ => {
            let start = log_start(log, query);
            let positions = |range: std::ops::RangeInclusive<u64>| range.map(Position::new);
            match query.direction {
                Direction::Forward => scan(log, query, positions(start..=log.head().value()), None),
                Direction::Backward => scan(log, query, positions(1..=start).rev(), None),
            }
        }
    }
}

/// Looks at the events at these positions, in this order, until the page is full.
fn scan(
    log: &Log,
    query: &ReadQuery,
    positions: impl Iterator<Item = Position>,
    bounds: Option<StreamBounds>,
) -> Result<Page, StoreError> {
    let mut page = PageBuilder::new(query);
    let mut first = None;
    let mut through = None;
    for position in positions {
        first.get_or_insert(position);
        if let Some(event) = log.event(position) {
            if !is_meant(&query.scope, event) {
                page.skip();
            } else if page.push_ready(event) == Pushed::Full {
                through = Some(step_back(query.direction, position));
                break;
            }
        }
        if page.is_full() {
            through = Some(position);
            break;
        }
    }
    let end = match query.direction {
        Direction::Forward => log.head(),
        Direction::Backward => Position::ZERO,
    };
    let scanned_through = through.unwrap_or(end);
    let erased = match (&query.scope, query.direction, first) {
        (Scope::Log, Direction::Forward, Some(first)) => log.erased_between(first, scanned_through),
        (Scope::Log, Direction::Backward, Some(first)) => {
            log.erased_between(scanned_through, first)
        }
        _ => Vec::new(),
    };
    let head = log.head();
    let lineage = log.lineage;
    Ok(page.finish(PageEnd { scanned_through, head, lineage, erased, bounds }))
}

/// The previous position in the read's direction.
fn step_back(direction: Direction, position: Position) -> Position {
    match direction {
        Direction::Forward => position.previous(),
        Direction::Backward => position.next(),
    }
}

fn is_meant(scope: &Scope, event: &RecordedEvent) -> bool {
    match scope {
        Scope::Log | Scope::Stream(_) => true,
        Scope::Category(category) => event.stream().category() == category.as_str(),
        Scope::Query(query) => query.matches(event.name(), event.tags()),
    }
}

/// The first position to look at in a forward read; the last in a backward read.
fn log_start(log: &Log, query: &ReadQuery) -> u64 {
    let head = log.head().value();
    let forward = query.direction == Direction::Forward;
    match query.from {
        ReadFrom::Start if forward => 1,
        ReadFrom::Start => 0,
        ReadFrom::End if forward => head + 1,
        ReadFrom::End => head,
        ReadFrom::Position(position) if forward => position.value().max(1),
        ReadFrom::Position(position) => position.value().min(head),
        ReadFrom::Time(time) => {
            let later =
                first_index(head, |index| is_later(log, Position::new(index + 1), time, forward));
            if forward { later + 1 } else { later }
        }
        ReadFrom::Version(_) => unreachable!("refused by the query's check"),
    }
}

/// The index at which the kept positions of a stream are cut. A forward read takes those from the
/// index on; a backward read takes those before it.
fn stream_start(log: &Log, query: &ReadQuery, kept: &[Position], bounds: StreamBounds) -> usize {
    let len = kept.len() as u64;
    let forward = query.direction == Direction::Forward;
    let index = match query.from {
        ReadFrom::Start => 0,
        ReadFrom::End => len,
        ReadFrom::Version(version) => cut_at_version(version, bounds, forward),
        ReadFrom::Position(position) => first_index(len, |index| {
            let at = kept[index as usize];
            if forward { at >= position } else { at > position }
        }),
        ReadFrom::Time(time) => {
            first_index(len, |index| is_later(log, kept[index as usize], time, forward))
        }
    };
    usize::try_from(index.min(len)).expect("no longer than a slice")
}

fn cut_at_version(version: StreamVersion, bounds: StreamBounds, forward: bool) -> u64 {
    let behind = version.value().saturating_sub(bounds.erased_through.value());
    // Both cuts are beside the version itself: forward before it, backward after it.
    if forward { behind.saturating_sub(1) } else { behind }
}

/// Returns whether the event at a position is after the cut at a time. An erased event has the time
/// of the next one that is there.
fn is_later(log: &Log, position: Position, time: Timestamp, forward: bool) -> bool {
    let mut rest = log.slots.iter().skip(position.value() as usize - 1).flatten();
    rest.next().is_none_or(|event| {
        if forward { event.recorded_at() >= time } else { event.recorded_at() > time }
    })
}

fn first_index(len: u64, is_behind: impl Fn(u64) -> bool) -> u64 {
    let found =
        partition_point(0, len, |index| Ok::<_, std::convert::Infallible>(is_behind(index)));
    found.unwrap_or_else(|never| match never {})
}
