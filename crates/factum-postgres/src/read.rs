//! The reading of one page: one statement, and so one snapshot.

use factum_backend::{PageBuilder, PageEnd, Pushed};
use factum_kernel::{
    Content, Direction, ErasedRange, EventHeader, EventId, EventParts, Lineage, PAGE_BYTES_MAX,
    PAGE_EVENTS_MAX, Page, Position, ReadFrom, ReadQuery, Scope, StoreError, StreamBounds,
    StreamId, StreamInfo, StreamVersion, Timestamp,
};
use tokio_postgres::{Row, types::Type};

use crate::{
    change,
    documents::no_row,
    link::get,
    number::{signed, unsigned},
    pool::Pool,
    round::Items,
    seen::Seen,
    statement::Statements,
};

/// The kind of a page's rows that are events. After the first row, the others are erased ranges.
const EVENT: i32 = 1;

/// Reads the page that a query asks for. The query was checked.
pub(crate) async fn page(
    pool: &Pool,
    statements: &Statements,
    query: &ReadQuery,
) -> Result<Page, StoreError> {
    let is_forward = query.direction == Direction::Forward;
    let (from, at) = beginning(query.from);
    let (events_max, bytes_max) = room(query);
    let place = [(&from as _, Type::INT4), (&at as _, Type::INT8), (&is_forward as _, Type::BOOL)];
    let room = [(&events_max as _, Type::INT4), (&bytes_max as _, Type::INT8)];
    let asked = |scope: Vec<_>| [scope, place.to_vec(), room.to_vec()].concat();
    let rows = match &query.scope {
        Scope::Log => pool.read(&statements.log_page, &asked(vec![])).await?,
        Scope::Stream(stream) => {
            let stream = stream.as_str();
            pool.read(&statements.stream_page, &asked(vec![(&stream, Type::TEXT)])).await?
        }
        Scope::Category(category) => {
            let category = category.as_str();
            pool.read(&statements.category_page, &asked(vec![(&category, Type::TEXT)])).await?
        }
        Scope::Query(wanted) => {
            let items = Items::of(wanted.items());
            let scope = vec![
                (&items.item_types as _, Type::INT4_ARRAY),
                (&items.item_tags as _, Type::INT4_ARRAY),
                (&items.types as _, Type::TEXT_ARRAY),
                (&items.tags as _, Type::TEXT_ARRAY),
            ];
            pool.read(&statements.query_page, &asked(scope)).await?
        }
    };
    build(query, &rows)
}

/// The beginning of a read, in the database's terms.
fn beginning(from: ReadFrom) -> (i32, i64) {
    match from {
        ReadFrom::Start => (0, 0),
        ReadFrom::End => (1, 0),
        ReadFrom::Position(position) => (2, signed(position.value())),
        ReadFrom::Version(version) => (3, signed(version.value())),
        ReadFrom::Time(time) => (4, signed(time.as_micros())),
    }
}

/// The most events and bytes to fetch. If the read filters by origin, as many as a page may hold at
/// all, because most of them are left out here.
fn room(query: &ReadQuery) -> (i32, i64) {
    let events = match query.origin {
        Some(_) => PAGE_EVENTS_MAX,
        None => query.events_max.min(PAGE_EVENTS_MAX),
    };
    let bytes = match query.origin {
        Some(_) => PAGE_BYTES_MAX,
        None => query.bytes_max.min(PAGE_BYTES_MAX),
    };
    (events as i32, bytes as i64)
}

fn build(query: &ReadQuery, rows: &[Row]) -> Result<Page, StoreError> {
    let is_forward = query.direction == Direction::Forward;
    let number = |row, column| get::<Option<i64>>(row, column).map(|it| it.map(unsigned));
    let (first, rows) = rows.split_first().ok_or_else(no_row)?;
    let head = number(first, 1)?.unwrap_or(0);
    let bounds = match query.scope {
        Scope::Stream(_) => Some(StreamBounds {
            version: StreamVersion::new(number(first, 2)?.unwrap_or(0)),
            erased_through: StreamVersion::new(number(first, 3)?.unwrap_or(0)),
            deleted_at: StreamVersion::new(number(first, 4)?.unwrap_or(0)),
        }),
        _ => None,
    };
    let mut events = Vec::with_capacity(rows.len());
    let mut erased = Vec::new();
    for row in rows {
        match get(row, 0)? {
            EVENT => events.push(row),
            _ => erased.push(row),
        }
    }
    let (page, came_to) = fill(query, &events)?;
    // The last position looked at, if a filter stopped the work although the page had room.
    let paused = match query.scope {
        Scope::Query(_) => number(first, 4)?,
        _ => None,
    };
    let paused = paused.map(|next| if is_forward { next.saturating_sub(1) } else { next + 1 });
    let at_end = if is_forward { head } else { 0 };
    let through = came_to.or(paused).unwrap_or(at_end);
    let start = number(first, 2)?.unwrap_or(0);
    Ok(page.finish(PageEnd {
        scanned_through: Position::new(through),
        head: Position::new(head),
        lineage: Lineage::new(get(first, 5)?),
        erased: match query.scope {
            Scope::Log => erased_between(&erased, is_forward, start, through)?,
            _ => Vec::new(),
        },
        bounds,
    }))
}

/// The page, and its last position if it ended before all that there is.
fn fill<'q>(
    query: &'q ReadQuery,
    rows: &[&Row],
) -> Result<(PageBuilder<'q>, Option<u64>), StoreError> {
    let mut page = PageBuilder::new(query);
    let (events_max, bytes_max) = room(query);
    let mut size = 0_i64;
    let mut last = None;
    for row in rows {
        if page.is_full() {
            return Ok((page, last));
        }
        let (header, parts) = event(row)?;
        if page.push(header, &parts)? == Pushed::Full {
            return Ok((page, last));
        }
        last = Some(header.position.value());
        let bodies = [parts.tags, parts.metadata, parts.payload];
        size += (parts.stream.len() + parts.name.len()) as i64;
        size += bodies.iter().map(|body| body.len() as i64).sum::<i64>();
    }
    // The database returns no more than this, so there may be more.
    let is_cut = rows.len() as i64 >= i64::from(events_max) || size > bytes_max;
    Ok((page, last.filter(|_| is_cut)))
}

fn event(row: &Row) -> Result<(EventHeader, EventParts<'_>), StoreError> {
    let number = |column| get::<i64>(row, column).map(unsigned);
    let header = EventHeader {
        position: Position::new(number(1)?),
        version: StreamVersion::new(number(2)?),
        recorded_at: Timestamp::from_micros(number(3)?),
        schema_version: u32::try_from(number(4)?).unwrap_or(u32::MAX),
        id: EventId::new(get(row, 5)?),
        content: Content::from_number(u16::try_from(get::<i32>(row, 6)?).unwrap_or(u16::MAX)),
    };
    let parts = EventParts {
        stream: get(row, 7)?,
        name: get(row, 8)?,
        tags: get(row, 9)?,
        metadata: get(row, 10)?,
        payload: get(row, 11)?,
    };
    Ok((header, parts))
}

/// The erased ranges between the beginning and the end of a read of the log, cut to these.
fn erased_between(
    rows: &[&Row],
    is_forward: bool,
    start: u64,
    through: u64,
) -> Result<Vec<ErasedRange>, StoreError> {
    let (low, high) = if is_forward { (start, through) } else { (through.max(1), start) };
    let mut ranges = Vec::new();
    for row in rows {
        let first = unsigned(get(row, 1)?).max(low);
        let last = unsigned(get(row, 2)?).min(high);
        if first <= last {
            ranges.push(ErasedRange { first: Position::new(first), last: Position::new(last) });
        }
    }
    ranges.sort_by_key(|range| range.first);
    Ok(ranges)
}

/// The information about a stream.
pub(crate) async fn info(
    pool: &Pool,
    statements: &Statements,
    stream: &StreamId,
) -> Result<StreamInfo, StoreError> {
    let stream = stream.as_str();
    let rows = pool.read(&statements.stream_info, &[(&stream, Type::TEXT)]).await?;
    change::info(rows.first().ok_or_else(no_row)?, 0)
}

/// The end of the log.
pub(crate) async fn end(pool: &Pool, statements: &Statements) -> Result<Seen, StoreError> {
    Seen::of(&pool.read(&statements.log_end, &[]).await?)
}
