//! The toy's answers to reads.

use factum_kernel::{
    Direction, ErasedRange, PAGE_EVENTS_MAX, Page, Position, Query, QueryItem, ReadFrom, ReadQuery,
    RecordedEvent, Scope, StreamVersion,
};

use super::{
    Flaw,
    log::{Log, Slot},
};

/// A page pauses after a look at this many events that have a tag or type of the same item.
const LOOKS_MAX: usize = 50;

/// One page of a log that no caller changes in the meantime.
pub(super) fn page(log: &Log, query: &ReadQuery, flaw: Flaw) -> Page {
    let query = &if flaw == Flaw::WrapsNumbers { wrapped(query) } else { query.clone() };
    let mut meant: Vec<&RecordedEvent> =
        log.events().filter(|event| is_meant(query, event, flaw)).collect();
    if flaw == Flaw::TagsStayGone && matches!(query.scope, Scope::Query(_)) {
        meant.retain(|event| !event.tags().any(|tag| log.gone_tags.contains(tag)));
    }
    if query.direction == Direction::Backward {
        meant.reverse();
    }
    let pause = pause(log, query, &mut meant, flaw);
    let taken = if flaw == Flaw::UnboundedPages { meant.len() } else { room(query, &meant, flaw) };
    let end = match (query.direction, pause) {
        (Direction::Forward, None) => log.head(),
        (Direction::Forward, Some(pause)) => pause.previous(),
        (Direction::Backward, None) => Position::ZERO,
        (Direction::Backward, Some(pause)) => pause.next(),
    };
    let mut page = Page::empty(log.lineage);
    page.head = log.head();
    let more = taken < meant.len();
    let stuck = if taken == 0 { Position::ZERO } else { meant[taken - 1].position() };
    page.scanned_through = if more && flaw != Flaw::ScansTooFar { stuck } else { end };
    page.events = meant[..taken].iter().map(|event| (*event).clone()).collect();
    if query.scope == Scope::Log && flaw != Flaw::HidesErased {
        page.erased = erased(log, query, page.scanned_through);
    }
    if let Scope::Stream(stream) = &query.scope {
        page.bounds = Some(log.bounds(stream));
    }
    page
}

/// The position at which the page pauses: where the first of its items does. Removes the events
/// that no item has found before its own pause.
fn pause(
    log: &Log,
    query: &ReadQuery,
    meant: &mut Vec<&RecordedEvent>,
    flaw: Flaw,
) -> Option<Position> {
    let Scope::Query(wanted) = &query.scope else { return None };
    let item = |item: &QueryItem| (Query::new([item.clone()]), pause_of(log, query, item));
    let items: Vec<_> = wanted.items().iter().map(item).collect();
    let is_before = |event: &RecordedEvent, pause: Option<Position>| {
        pause.is_none_or(|pause| match query.direction {
            Direction::Forward => event.position() < pause,
            Direction::Backward => event.position() > pause,
        })
    };
    let is_found = |event: &RecordedEvent| {
        items.iter().any(|(it, pause)| finds(it, event, flaw) && is_before(event, *pause))
    };
    let mut all = items.iter().map(|(_, pause)| *pause);
    let pause = match (query.direction, flaw) {
        (_, Flaw::ForgetsItems) => all.next_back().flatten(),
        (Direction::Forward, _) => all.flatten().min(),
        (Direction::Backward, _) => all.flatten().max(),
    };
    meant.retain(|event| is_found(event) && is_before(event, pause));
    pause
}

fn pause_of(log: &Log, query: &ReadQuery, item: &QueryItem) -> Option<Position> {
    let tags = item.tags.iter().map(|tag| QueryItem { types: vec![], tags: vec![tag.clone()] });
    let types = QueryItem { types: item.types.clone(), tags: vec![] };
    let types = Some(types).filter(|types| !types.types.is_empty());
    let mut entries = query.clone();
    entries.scope = Scope::Query(Query::new(tags.chain(types)));
    let mut listed = log.events().filter(|event| is_meant(&entries, event, Flaw::None));
    let found = match query.direction {
        Direction::Forward => listed.nth(LOOKS_MAX),
        Direction::Backward => listed.nth_back(LOOKS_MAX),
    };
    found.map(RecordedEvent::position)
}

/// Whether a read of this query finds the event.
fn finds(query: &Query, event: &RecordedEvent, flaw: Flaw) -> bool {
    if flaw != Flaw::AnyTag {
        return query.matches(event.name(), event.tags());
    }
    // Flawed: one of the tags is enough.
    let held = |tag: &factum_kernel::Tag| event.tags().any(|label| label == tag.as_str());
    let typed = |types: &[factum_kernel::EventName]| {
        types.is_empty() || types.iter().any(|name| name.as_str() == event.name())
    };
    let found = |tags: &[factum_kernel::Tag]| tags.is_empty() || tags.iter().any(held);
    query.items().iter().any(|item| typed(&item.types) && found(&item.tags))
}

/// Flawed: numbers that are too large for a signed number come first.
fn wrapped(query: &ReadQuery) -> ReadQuery {
    let is_large = |number: u64| i64::try_from(number).is_err();
    let mut query = query.clone();
    query.from = match query.from {
        ReadFrom::Position(from) if is_large(from.value()) => ReadFrom::Position(Position::ZERO),
        ReadFrom::Version(from) if is_large(from.value()) => ReadFrom::Version(StreamVersion::ZERO),
        from => from,
    };
    query
}

/// The number of events that fit; at least one.
fn room(query: &ReadQuery, meant: &[&RecordedEvent], flaw: Flaw) -> usize {
    let least = usize::from(flaw != Flaw::StuckPages);
    let mut bytes = 0;
    let fits = |event: &&&RecordedEvent| {
        bytes += event.size();
        bytes <= query.bytes_max
    };
    let most = query.events_max.min(PAGE_EVENTS_MAX);
    meant.iter().take(most).take_while(fits).count().max(least.min(meant.len()))
}

fn is_meant(query: &ReadQuery, event: &RecordedEvent, flaw: Flaw) -> bool {
    let in_scope = match &query.scope {
        Scope::Log => true,
        Scope::Stream(stream) if flaw == Flaw::PrefixStreams => {
            event.stream().as_str().starts_with(stream.as_str())
        }
        Scope::Stream(stream) => event.stream() == *stream,
        Scope::Category(category) => event.stream().category() == category.as_str(),
        Scope::Query(query) => finds(query, event, flaw),
    };
    let origin = query.origin.as_ref();
    in_scope
        && origin.is_none_or(|origin| event.metadata().origin.as_ref() == Some(origin))
        && is_behind(query, event, flaw)
}

fn is_behind(query: &ReadQuery, event: &RecordedEvent, flaw: Flaw) -> bool {
    let forward = query.direction == Direction::Forward;
    if !forward && flaw == Flaw::BackwardFromEnd {
        // It does go on where a page ended, or a read would never end.
        return !matches!(query.from, ReadFrom::Position(from) if event.position() > from);
    }
    let order = match query.from {
        ReadFrom::Start => return forward,
        ReadFrom::End => return !forward,
        ReadFrom::Position(from) => event.position().cmp(&from),
        ReadFrom::Version(from) => event.version().cmp(&from),
        ReadFrom::Time(from) => event.recorded_at().cmp(&from),
    };
    if forward { order.is_ge() } else { order.is_le() }
}

/// The erased positions that the page has passed.
fn erased(log: &Log, query: &ReadQuery, through: Position) -> Vec<ErasedRange> {
    let from = match (query.direction, query.from) {
        (Direction::Forward, ReadFrom::Start) => Position::ZERO,
        (Direction::Backward, ReadFrom::End) => log.head(),
        (_, ReadFrom::Position(from)) => from,
        (direction, ReadFrom::Time(_)) => match first_meant(log, query, direction) {
            Some(position) => position,
            None => return vec![],
        },
        _ => return vec![],
    };
    let (low, high) = match query.direction {
        Direction::Forward => (from, through),
        Direction::Backward => (through, from),
    };
    let mut ranges: Vec<ErasedRange> = vec![];
    for (at, slot) in log.slots.iter().enumerate() {
        let position = Position::new(at as u64 + 1);
        if !matches!(slot, Slot::Erased(_)) || position < low || position > high {
            continue;
        }
        match ranges.last_mut() {
            Some(range) if range.last.next() == position => range.last = position,
            _ => ranges.push(ErasedRange { first: position, last: position }),
        }
    }
    ranges
}

fn first_meant(log: &Log, query: &ReadQuery, direction: Direction) -> Option<Position> {
    let mut meant = log.events().filter(|event| is_meant(query, event, Flaw::None));
    match direction {
        Direction::Forward => meant.next(),
        Direction::Backward => meant.next_back(),
    }
    .map(RecordedEvent::position)
}
