//! The beginning of a read: a position of the log, or a version of a stream. An index or a binary
//! search finds it, never a walk through events.

use factum_backend::partition_point;
use factum_kernel::{Direction, ReadFrom, ReadQuery, StoreError, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use crate::{
    error::{Fault, Result},
    number::{signed, unsigned},
    sql,
    stream::StreamEntry,
};

/// The first position to look at, within the ends of the log.
pub(crate) fn in_log(connection: &Connection, query: &ReadQuery, head: u64) -> Result<u64> {
    let is_forward = query.direction == Direction::Forward;
    Ok(match query.from {
        ReadFrom::Start if is_forward => 1,
        ReadFrom::Start => 0,
        ReadFrom::End if is_forward => head + 1,
        ReadFrom::End => head,
        ReadFrom::Position(position) if is_forward => position.value().max(1),
        ReadFrom::Position(position) => position.value().min(head),
        ReadFrom::Time(time) => {
            let after = partition_point(1, head + 1, |position| {
                let time_there = time_from(connection, position)?;
                Ok::<_, Fault>(time_there.is_none_or(|there| is_behind(there, time, is_forward)))
            })?;
            if is_forward { after } else { after - 1 }
        }
        ReadFrom::Version(_) => return Err(only_streams()),
    })
}

/// The first version to look at.
pub(crate) fn in_stream(
    connection: &Connection,
    query: &ReadQuery,
    entry: &StreamEntry,
) -> Result<u64> {
    let is_forward = query.direction == Direction::Forward;
    let version = entry.bounds.version.value();
    let first = entry.bounds.erased_through.value() + 1;
    let after = match query.from {
        ReadFrom::Start => return Ok(if is_forward { 1 } else { 0 }),
        ReadFrom::End => return Ok(if is_forward { version + 1 } else { version }),
        ReadFrom::Version(version) => return Ok(version.value()),
        ReadFrom::Position(position) => partition_point(first, version + 1, |version| {
            let there = entry.place(connection, version)?.position;
            let asked = position.value();
            Ok::<_, Fault>(if is_forward { there >= asked } else { there > asked })
        })?,
        ReadFrom::Time(time) => partition_point(first, version + 1, |version| {
            let there = entry.place(connection, version)?.recorded_at;
            Ok::<_, Fault>(is_behind(there, time, is_forward))
        })?,
    };
    Ok(if is_forward { after } else { after - 1 })
}

fn is_behind(there: Timestamp, asked: Timestamp, is_forward: bool) -> bool {
    if is_forward { there >= asked } else { there > asked }
}

/// The time of the first event at or after a position: the position of an erased event counts as
/// that of the next existing one.
fn time_from(connection: &Connection, position: u64) -> Result<Option<Timestamp>> {
    let mut find = connection.prepare_cached(sql::TIME_FROM)?;
    let time = find.query_row([signed(position)], |row| row.get(0)).optional()?;
    Ok(time.map(|micros| Timestamp::from_micros(unsigned(micros))))
}

fn only_streams() -> Fault {
    StoreError::invalid("only a stream can be read from a version").into()
}
