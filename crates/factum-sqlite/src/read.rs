//! The reading of one page, from one snapshot.

use factum_backend::{Candidate, Matches, PAGE_SCANNED_MAX, PageBuilder, PageEnd, Pushed, Walk};
use factum_kernel::{
    Content, Direction, ErasedRange, EventHeader, EventId, EventParts, Page, Position, ReadQuery,
    Scope, StreamBounds, StreamId, StreamInfo, StreamVersion, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row, Rows};

use crate::{
    cache::Snapshot,
    checksum,
    error::{Fault, Result},
    number::{signed, unsigned},
    posting::{self, List},
    sequence::Sequence,
    sql, start,
    stream::StreamEntry,
};

/// Reads the page that a query asks for. The query was checked.
pub(crate) fn page(connection: &Connection, query: &ReadQuery) -> Result<Page> {
    let snapshot = Snapshot::read(connection)?;
    let mut page = PageBuilder::new(query);
    let mut end = PageEnd {
        scanned_through: Position::ZERO,
        head: snapshot.head,
        lineage: snapshot.lineage,
        erased: Vec::new(),
        bounds: None,
    };
    let stopped_at = match &query.scope {
        Scope::Stream(stream) => {
            let (bounds, stopped_at) = stream_page(connection, query, stream, &mut page)?;
            end.bounds = Some(bounds);
            stopped_at
        }
        scope => {
            let from = start::in_log(connection, query, snapshot.head.value())?;
            let walk = Walk { from, direction: query.direction };
            match scope {
                Scope::Log => {
                    let (erased, stopped_at) =
                        log_page(connection, walk, snapshot.head, &mut page)?;
                    end.erased = erased;
                    stopped_at
                }
                _ => {
                    let matches = matches(connection, query, walk)?;
                    matching_page(connection, walk, matches, &mut page)?
                }
            }
        }
    };
    end.scanned_through = stopped_at.unwrap_or(match query.direction {
        Direction::Forward => snapshot.head,
        Direction::Backward => Position::ZERO,
    });
    let page = page.finish(end);
    check_scope(query, &page)?;
    Ok(page)
}

/// Checks the scope of the events, because a damaged index can lead to others.
fn check_scope(query: &ReadQuery, page: &Page) -> Result<()> {
    for event in &page.events {
        let is_meant = match &query.scope {
            Scope::Log => true,
            Scope::Stream(stream) => event.stream().as_str() == stream.as_str(),
            Scope::Category(category) => event.stream().category() == category.as_str(),
            Scope::Query(query) => query.matches(event.name(), event.tags()),
        };
        if !is_meant {
            let position = event.position();
            return Err(Fault::Damage(format!(
                "an index leads to a wrong event: position={position}"
            )));
        }
    }
    Ok(())
}

/// The information about a stream.
pub(crate) fn info(connection: &Connection, stream: &StreamId) -> Result<StreamInfo> {
    match StreamEntry::find(connection, stream)? {
        Some(entry) => entry.info(connection),
        None => Ok(StreamInfo::default()),
    }
}

/// The last position that was looked at, if the page ended before the read's end.
type StoppedAt = Option<Position>;

fn log_page(
    connection: &Connection,
    walk: Walk,
    head: Position,
    page: &mut PageBuilder<'_>,
) -> Result<(Vec<ErasedRange>, StoppedAt)> {
    let Walk { from, direction } = walk;
    let mut statement = connection.prepare_cached(match direction {
        Direction::Forward => sql::LOG_FORWARD,
        Direction::Backward => sql::LOG_BACKWARD,
    })?;
    let mut passed = Sequence::new(direction, from);
    let rows = statement.query([signed(from)])?;
    let stopped_at = fill(page, rows, |header| passed.pass(header.position.value()))?;
    let through = stopped_at.unwrap_or(match direction {
        Direction::Forward => head,
        Direction::Backward => Position::ZERO,
    });
    let erased = erased(connection, direction, from, through.value())?;
    let erased_numbers = erased.iter().map(|range| (range.first.value(), range.last.value()));
    let missing = passed.missing(through.value());
    if !erased_numbers.eq(missing.iter().copied()) {
        let message = format!("events are missing that were not erased: through={through}");
        return Err(Fault::Damage(message));
    }
    Ok((erased, stopped_at))
}

fn stream_page(
    connection: &Connection,
    query: &ReadQuery,
    stream: &StreamId,
    page: &mut PageBuilder<'_>,
) -> Result<(StreamBounds, StoppedAt)> {
    let Some(entry) = StreamEntry::find(connection, stream)? else {
        return Ok((StreamBounds::default(), None));
    };
    let start = start::in_stream(connection, query, &entry)?;
    let mut statement = connection.prepare_cached(match query.direction {
        Direction::Forward => sql::STREAM_FORWARD,
        Direction::Backward => sql::STREAM_BACKWARD,
    })?;
    let rows = statement.query([entry.number, signed(start)])?;
    let StreamBounds { version, erased_through, .. } = entry.bounds;
    let first = erased_through.next().value();
    let mut passed = Sequence::new(
        query.direction,
        match query.direction {
            Direction::Forward => start.max(first),
            Direction::Backward => start.min(version.value()),
        },
    );
    let mut last = None;
    let stopped_at = fill(page, rows, |header| {
        last = Some(header.version.value());
        passed.pass(header.version.value())
    })?;
    let through = match (stopped_at, query.direction) {
        (Some(_), _) => last.unwrap_or(0),
        (None, Direction::Forward) => version.value(),
        (None, Direction::Backward) => first,
    };
    if !passed.missing(through).is_empty() {
        let message =
            format!("events of a stream are missing that were not erased: stream={stream}");
        return Err(Fault::Damage(message));
    }
    Ok((entry.bounds, stopped_at))
}

/// Takes rows until the page is full or there are no more.
fn fill(
    page: &mut PageBuilder<'_>,
    mut rows: Rows<'_>,
    mut pass: impl FnMut(&EventHeader) -> Result<()>,
) -> Result<StoppedAt> {
    let mut stopped_at = None;
    while !page.is_full() {
        let Some(row) = rows.next()? else { return Ok(None) };
        let (header, pushed) = push(page, row)?;
        if pushed == Pushed::Full {
            break;
        }
        pass(&header)?;
        stopped_at = Some(header.position);
    }
    Ok(stopped_at)
}

fn matches<'c>(
    connection: &'c Connection,
    query: &ReadQuery,
    walk: Walk,
) -> Result<Matches<List<'c>>> {
    match &query.scope {
        Scope::Category(category) => posting::of_category(connection, category, walk),
        Scope::Query(query) => {
            posting::of_query(connection, query, walk, |kind, name| kind.find(connection, name))
        }
        Scope::Log | Scope::Stream(_) => unreachable!("these are read without an index of matches"),
    }
}

fn matching_page(
    connection: &Connection,
    walk: Walk,
    mut matches: Matches<List<'_>>,
    page: &mut PageBuilder<'_>,
) -> Result<StoppedAt> {
    let Walk { from, direction } = walk;
    let mut statement = connection.prepare_cached(sql::EVENT_AT)?;
    let mut at = from;
    let mut looks = PAGE_SCANNED_MAX;
    // Everything on this side of `at` is on the page or does not match.
    let before = |at: u64| {
        Some(Position::new(match direction {
            Direction::Forward => at.saturating_sub(1),
            Direction::Backward => at.saturating_add(1),
        }))
    };
    while !page.is_full() {
        let position = match matches.seek(at, &mut looks)? {
            None => return Ok(None),
            Some(Candidate::Paused(position)) => return Ok(before(position)),
            Some(Candidate::Match(position)) => position,
        };
        let mut rows = statement.query([signed(position)])?;
        let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        if push(page, row)?.1 == Pushed::Full {
            return Ok(before(position));
        }
        at = match direction {
            Direction::Forward => position + 1,
            Direction::Backward => position - 1,
        };
    }
    Ok(before(at))
}

/// Offers a row of `events!` to the page, if it is as it was written.
fn push(page: &mut PageBuilder<'_>, row: &Row<'_>) -> Result<(EventHeader, Pushed)> {
    let number = |index| row.get(index).map(unsigned);
    let header = EventHeader {
        position: Position::new(number(0)?),
        version: StreamVersion::new(number(1)?),
        recorded_at: Timestamp::from_micros(number(2)?),
        id: EventId::new(uuid::Uuid::from_bytes(row.get(3)?)),
        schema_version: row.get(4)?,
        content: Content::from_number(row.get(5)?),
    };
    let parts = EventParts {
        stream: row.get_ref(6)?.as_str()?,
        name: row.get_ref(7)?.as_str()?,
        tags: row.get_ref(8)?.as_blob()?,
        metadata: row.get_ref(9)?.as_blob()?,
        payload: row.get_ref(10)?.as_blob()?,
    };
    if row.get::<_, i64>(11)? != i64::from(checksum::of(&header, &parts)) {
        let position = header.position;
        return Err(Fault::Damage(format!(
            "an event is not what was written: position={position}"
        )));
    }
    let pushed = page.push(header, &parts)?;
    Ok((header, pushed))
}

/// The erased ranges between the beginning and the end of a read of the log, cut to these.
fn erased(
    connection: &Connection,
    direction: Direction,
    start: u64,
    through: u64,
) -> Result<Vec<ErasedRange>> {
    let (first, last) = match direction {
        Direction::Forward => (start, through),
        Direction::Backward => (through.max(1), start),
    };
    let range = |row: &Row<'_>| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?)));
    let mut before = connection.prepare_cached(sql::ERASED_BEFORE)?;
    let before = before.query_row([signed(first)], range).optional()?;
    let mut inside = connection.prepare_cached(sql::ERASED_FROM)?;
    let inside = inside.query_map([signed(first), signed(last)], range)?;
    let mut ranges = Vec::new();
    for found in before.into_iter().map(Ok).chain(inside) {
        let (from, to) = found?;
        let from = from.max(first);
        let to = to.min(last);
        if from <= to {
            ranges.push(ErasedRange { first: Position::new(from), last: Position::new(to) });
        }
    }
    Ok(ranges)
}
