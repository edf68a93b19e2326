//! A whole read, page by page, with the checks that every page must pass.

use factum_kernel::{
    Direction, EventStore, Lineage, PAGE_EVENTS_MAX, Page, Position, ReadFrom, ReadQuery,
    RecordedEvent, Scope, StreamBounds, StreamVersion, Timestamp,
};

use super::failure::{CaseResult, Within, ensure, ensure_eq};
use crate::scope::in_scope;

/// The result of a whole read.
#[derive(Debug, Clone)]
pub(crate) struct Walk {
    pub(crate) events: Vec<RecordedEvent>,
    /// Every erased position of a read of the log, in the order of the read.
    pub(crate) erased: Vec<Position>,
    pub(crate) head: Position,
    pub(crate) lineage: Lineage,
    pub(crate) bounds: Option<StreamBounds>,
    pub(crate) pages: u64,
}

/// Reads to the end. The log may grow in the meantime.
pub(crate) async fn walk(store: &dyn EventStore, query: ReadQuery) -> CaseResult<Walk> {
    let place = format!("{query:?}");
    walk_checked(store, query).await.within(|| place)
}

async fn walk_checked(store: &dyn EventStore, query: ReadQuery) -> CaseResult<Walk> {
    let mut seen: Option<Walk> = None;
    let mut asked = query.clone();
    loop {
        let page = store.read(asked.clone()).await?;
        let pages = seen.as_ref().map_or(0, |so_far| so_far.pages);
        let place = || format!("page {} from {:?}", pages + 1, asked.from);
        check_page(&asked, &page).within(place)?;
        let next = asked.next(&page);
        let so_far = match seen.take() {
            None => begin(page),
            Some(so_far) => go_on(so_far, page, asked.direction).within(place)?,
        };
        ensure!(
            so_far.pages <= so_far.head.value() + 2,
            "{} pages for a log of {} events, and no end: pages do not move on",
            so_far.pages,
            so_far.head
        );
        match next {
            Some(next) => (seen, asked) = (Some(so_far), next),
            None => {
                check_cover(&query, &so_far)?;
                return Ok(so_far);
            }
        }
    }
}

fn begin(page: Page) -> Walk {
    let mut walk = Walk {
        events: vec![],
        erased: vec![],
        head: page.head,
        lineage: page.lineage,
        bounds: page.bounds,
        pages: 0,
    };
    take(&mut walk, page);
    walk
}

fn take(walk: &mut Walk, page: Page) {
    walk.head = page.head;
    walk.bounds = page.bounds;
    walk.pages += 1;
    let ranges = page.erased.iter();
    walk.erased.extend(
        ranges.flat_map(|range| (range.first.value()..=range.last.value()).map(Position::new)),
    );
    walk.events.extend(page.events);
}

fn go_on(mut walk: Walk, page: Page, direction: Direction) -> CaseResult<Walk> {
    ensure_eq!(page.lineage, walk.lineage, "lineage of a later page of one read");
    ensure!(page.head >= walk.head, "head went back from {} to {}", walk.head, page.head);
    if let (Some(last), Some(first)) = (walk.events.last(), page.events.first()) {
        ensure!(
            in_order(last, first, direction),
            "position {} follows {} over the border of two pages",
            first.position(),
            last.position()
        );
    }
    take(&mut walk, page);
    Ok(walk)
}

/// Checks the rules of a single page, whatever is in the log.
pub(crate) fn check_page(query: &ReadQuery, page: &Page) -> CaseResult {
    check_size(query, page)?;
    check_bounds(query, page)?;
    ensure!(!page.lineage.as_uuid().is_nil(), "the lineage is nil");
    ensure!(
        page.scanned_through <= page.head,
        "scanned_through={} is after head={}",
        page.scanned_through,
        page.head
    );
    for pair in page.events.windows(2) {
        ensure!(
            in_order(&pair[0], &pair[1], query.direction),
            "position {} (version {}) follows {} (version {})",
            pair[1].position(),
            pair[1].version(),
            pair[0].position(),
            pair[0].version()
        );
    }
    for event in &page.events {
        check_event(query, page, event)?;
    }
    check_erased(query, page)
}

fn check_size(query: &ReadQuery, page: &Page) -> CaseResult {
    let most = query.events_max.min(PAGE_EVENTS_MAX);
    ensure!(page.events.len() <= most, "{} events, at most {most} wanted", page.events.len());
    let bytes: usize = page.events.iter().map(RecordedEvent::size).sum();
    ensure!(
        bytes <= query.bytes_max || page.events.len() == 1,
        "{} events of {bytes} bytes, at most {} wanted",
        page.events.len(),
        query.bytes_max
    );
    let filtered =
        query.origin.is_some() || matches!(query.scope, Scope::Category(_) | Scope::Query(_));
    let ended = query.next(page).is_none();
    ensure!(
        filtered || ended || !page.events.is_empty() || !page.erased.is_empty(),
        "an empty page although no filter was asked for and the end is not reached: \
         scanned_through={} head={}",
        page.scanned_through,
        page.head
    );
    Ok(())
}

fn check_bounds(query: &ReadQuery, page: &Page) -> CaseResult {
    match (&query.scope, page.bounds) {
        (Scope::Stream(_), None) => ensure!(false, "a stream's page says no bounds"),
        (Scope::Stream(_), Some(bounds)) => {
            for event in &page.events {
                ensure!(
                    event.version() > bounds.erased_through && event.version() <= bounds.version,
                    "version {} is outside of {bounds:?}",
                    event.version()
                );
            }
        }
        (_, bounds) => ensure_eq!(bounds, None, "bounds of a page that is no stream's"),
    }
    Ok(())
}

fn in_order(one: &RecordedEvent, next: &RecordedEvent, direction: Direction) -> bool {
    let (early, late) = match direction {
        Direction::Forward => (one, next),
        Direction::Backward => (next, one),
    };
    let streams = early.stream() != late.stream() || early.version() < late.version();
    early.position() < late.position() && early.recorded_at() <= late.recorded_at() && streams
}

fn check_event(query: &ReadQuery, page: &Page, event: &RecordedEvent) -> CaseResult {
    let position = event.position();
    let through = page.scanned_through;
    ensure!(is_meant(query, event), "position {position} was not asked for");
    ensure!(position <= page.head, "position {position} is after head={}", page.head);
    let scanned = match query.direction {
        Direction::Forward => position <= through,
        Direction::Backward => position >= through,
    };
    ensure!(scanned, "position {position} was returned, but scanned_through={through}");
    Ok(())
}

/// Returns whether an event belongs in an answer, by scope, origin and beginning.
pub(crate) fn is_meant(query: &ReadQuery, event: &RecordedEvent) -> bool {
    in_scope(&query.scope, event)
        && query.origin.as_ref().is_none_or(|o| event.metadata().origin.as_ref() == Some(o))
        && after_beginning(query, event.position(), event.version(), event.recorded_at())
}

fn after_beginning(
    query: &ReadQuery,
    position: Position,
    version: StreamVersion,
    recorded_at: Timestamp,
) -> bool {
    match (query.direction, query.from) {
        (Direction::Forward, ReadFrom::Start) | (Direction::Backward, ReadFrom::End) => true,
        (Direction::Forward, ReadFrom::Position(from)) => position >= from,
        (Direction::Backward, ReadFrom::Position(from)) => position <= from,
        (Direction::Forward, ReadFrom::Version(from)) => version >= from,
        (Direction::Backward, ReadFrom::Version(from)) => version <= from,
        (Direction::Forward, ReadFrom::Time(from)) => recorded_at >= from,
        (Direction::Backward, ReadFrom::Time(from)) => recorded_at <= from,
        // After the end, and before the start, there is nothing; but the end may have moved since a
        // forward read began there.
        (Direction::Forward, ReadFrom::End) | (Direction::Backward, ReadFrom::Start) => false,
    }
}

fn check_erased(query: &ReadQuery, page: &Page) -> CaseResult {
    if query.scope != Scope::Log {
        ensure!(page.erased.is_empty(), "erased ranges on a page that is not the log's");
        return Ok(());
    }
    for range in &page.erased {
        ensure!(
            range.first <= range.last && range.first > Position::ZERO,
            "an erased range that is none: {range:?}"
        );
        let within = match query.direction {
            Direction::Forward => range.last <= page.scanned_through,
            Direction::Backward => range.first >= page.scanned_through,
        };
        ensure!(within, "{range:?} reaches beyond scanned_through={}", page.scanned_through);
    }
    let ascending = page.erased.windows(2).all(|pair| pair[0].last < pair[1].first);
    ensure!(ascending, "erased ranges are not ascending: {:?}", page.erased);
    Ok(())
}

/// Checks that events and erased ranges of a read of the log leave no gap and never overlap.
fn check_cover(query: &ReadQuery, walk: &Walk) -> CaseResult {
    if query.scope != Scope::Log || query.origin.is_some() {
        return Ok(());
    }
    let events = walk.events.iter().map(RecordedEvent::position);
    let mut covered: Vec<_> = events.chain(walk.erased.iter().copied()).collect();
    covered.sort_unstable();
    if let Some(twice) = covered.windows(2).find(|pair| pair[0] == pair[1]) {
        ensure!(false, "position {} is there twice, as event or erased", twice[0]);
    }
    if let Some(hole) = covered.windows(2).find(|pair| pair[0].next() != pair[1]) {
        ensure!(false, "positions jump from {} to {}", hole[0], hole[1]);
    }
    let (first, last) = match (query.direction, query.from) {
        (Direction::Forward, ReadFrom::Start) => (Some(Position::new(1)), Some(walk.head)),
        (Direction::Forward, ReadFrom::Position(from)) => {
            (Some(from.max(Position::new(1))), Some(walk.head))
        }
        (Direction::Backward, ReadFrom::End) => (Some(Position::new(1)), Some(walk.head)),
        (Direction::Backward, ReadFrom::Position(from)) => {
            (Some(Position::new(1)), Some(from.min(walk.head)))
        }
        // If the read begins at a time, the erased positions of the answer can't be told exactly.
        (Direction::Forward, ReadFrom::Time(_)) if !covered.is_empty() => (None, Some(walk.head)),
        (Direction::Backward, ReadFrom::Time(_)) if !covered.is_empty() => {
            (Some(Position::new(1)), None)
        }
        _ => return Ok(()),
    };
    if let (Some(first), Some(last)) = (first, last)
        && first > last
    {
        ensure!(covered.is_empty(), "positions {covered:?} from beyond the end");
        return Ok(());
    }
    if let Some(first) = first {
        ensure_eq!(covered.first(), Some(&first), "the first position covered");
    }
    if let Some(last) = last {
        ensure_eq!(covered.last(), Some(&last), "the last position covered");
    }
    Ok(())
}
