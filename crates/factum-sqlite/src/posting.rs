//! The search for matching positions: sorted lists of positions, one per category, type and tag.
//! Every list is an index that answers "the next position at or after this one"; [`Matches`]
//! intersects and merges them.

use std::collections::VecDeque;

use factum_backend::{Matches, Postings, QueryTerm, Walk};
use factum_kernel::{Category, Direction, Query};
use rusqlite::Connection;

use crate::{
    error::{Fault, Result},
    names::Kind,
    number::{signed, unsigned},
    sql,
};

/// The most positions that a list fetches at once.
const FETCH_MAX: u32 = 256;

/// The events of a category.
pub(crate) fn of_category<'c>(
    connection: &'c Connection,
    category: &Category,
    walk: Walk,
) -> Result<Matches<List<'c>>> {
    let number = Kind::Category.find(connection, category.as_str())?;
    let list = number.map(|number| List::new(connection, Source::Category(number)));
    Ok(Matches::of_list(list, walk))
}

/// The events that match a query. `find` returns the number of a type or tag.
pub(crate) fn of_query<'c>(
    connection: &'c Connection,
    query: &Query,
    walk: Walk,
    mut find: impl FnMut(Kind, &str) -> Result<Option<i64>>,
) -> Result<Matches<List<'c>>> {
    Matches::of_query(query, walk, |term| {
        let source = match term {
            QueryTerm::All => Some(Source::All),
            QueryTerm::Type(name) => find(Kind::Type, name)?.map(Source::Type),
            QueryTerm::Tag(tag) => find(Kind::Tag, tag)?.map(Source::Tag),
        };
        Ok(source.map(|source| List::new(connection, source)))
    })
}

#[derive(Debug, Clone, Copy)]
enum Source {
    All,
    Category(i64),
    Type(i64),
    Tag(i64),
}

impl Source {
    fn statement(self, direction: Direction) -> (&'static str, i64) {
        use Direction::{Backward, Forward};
        match (self, direction) {
            (Self::All, Forward) => (sql::ALL_FORWARD, 0),
            (Self::All, Backward) => (sql::ALL_BACKWARD, 0),
            (Self::Category(number), Forward) => (sql::CATEGORY_FORWARD, number),
            (Self::Category(number), Backward) => (sql::CATEGORY_BACKWARD, number),
            (Self::Type(number), Forward) => (sql::TYPE_FORWARD, number),
            (Self::Type(number), Backward) => (sql::TYPE_BACKWARD, number),
            (Self::Tag(number), Forward) => (sql::TAG_FORWARD, number),
            (Self::Tag(number), Backward) => (sql::TAG_BACKWARD, number),
        }
    }
}

/// The positions in one index, fetched a few at a time.
#[derive(Debug)]
pub(crate) struct List<'c> {
    connection: &'c Connection,
    source: Source,
    ready: VecDeque<u64>,
    /// The number of positions to fetch next: more while the list is read on, one after a leap.
    fetch: u32,
    is_at_end: bool,
}

impl<'c> List<'c> {
    fn new(connection: &'c Connection, source: Source) -> Self {
        Self { connection, source, ready: VecDeque::new(), fetch: 1, is_at_end: false }
    }

    fn fetch(&mut self, from: u64, direction: Direction) -> Result<()> {
        let (sql, number) = self.source.statement(direction);
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query((number, signed(from), self.fetch))?;
        while let Some(row) = rows.next()? {
            let found = unsigned(row.get(0)?);
            let last = self.ready.back().copied();
            // The answer to a leap must be after the leap's position, or a walk would never end.
            if is_before(found, from, direction)
                || last.is_some_and(|it| !is_before(it, found, direction))
            {
                let message = format!("an index is out of order: position={found}");
                return Err(Fault::Damage(message));
            }
            self.ready.push_back(found);
        }
        self.is_at_end = self.ready.len() < self.fetch as usize;
        self.fetch = (self.fetch * 2).min(FETCH_MAX);
        Ok(())
    }
}

impl Postings for List<'_> {
    type Error = Fault;

    fn seek(&mut self, from: u64, direction: Direction) -> Result<Option<u64>> {
        let before = self.ready.len();
        while self.ready.front().is_some_and(|front| is_before(*front, from, direction)) {
            self.ready.pop_front();
        }
        if before - self.ready.len() > 1 {
            self.fetch = 1;
        }
        if self.ready.is_empty() && !self.is_at_end {
            self.fetch(from, direction)?;
        }
        Ok(self.ready.front().copied())
    }
}

/// Returns whether a position comes before another on a walk.
fn is_before(position: u64, other: u64, direction: Direction) -> bool {
    match direction {
        Direction::Forward => position < other,
        Direction::Backward => position > other,
    }
}

#[cfg(test)]
mod tests;
