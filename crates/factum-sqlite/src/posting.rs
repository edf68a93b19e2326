//! Which positions match: sorted lists of positions, one per category, type and tag, crossed and
//! merged.
//!
//! Every list is an index that answers "the next position at or behind this one". Lists that an
//! event must be in all of are crossed by leaps: each list jumps to where the last one stands, so
//! that the work is bounded by the shortest, and nobody has to know beforehand which that is.

use std::collections::VecDeque;

use factum_core::{Category, Direction, Query, QueryItem};
use rusqlite::Connection;

use crate::{
    error::{Fault, Result},
    names::Kind,
    number::{signed, unsigned},
    sql,
};

/// The most positions that a list fetches at once.
const FETCH_MAX: u32 = 256;

/// The next place at which a match may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// An event that matches.
    Match(u64),
    /// The work was enough for one page: nothing before this position matches.
    Paused(u64),
}

impl Candidate {
    fn position(self) -> u64 {
        match self {
            Self::Match(position) | Self::Paused(position) => position,
        }
    }
}

/// The positions of the events that match, in one direction.
#[derive(Debug)]
pub(crate) struct Matches {
    items: Vec<Item>,
    walk: Walk,
}

/// What all lists of a walk share.
#[derive(Debug)]
struct Walk {
    direction: Direction,
    /// How many index entries may still be looked at.
    budget: usize,
}

impl Walk {
    /// Whether `a` comes before `b` on this walk.
    fn is_before(&self, a: u64, b: u64) -> bool {
        match self.direction {
            Direction::Forward => a < b,
            Direction::Backward => a > b,
        }
    }
}

impl Matches {
    /// Matches that look at no more than about `budget` index entries.
    fn new(items: Vec<Item>, direction: Direction, budget: usize) -> Self {
        Self { items, walk: Walk { direction, budget } }
    }

    /// The events of a category.
    pub(crate) fn of_category(
        connection: &Connection,
        category: &Category,
        direction: Direction,
        budget: usize,
    ) -> Result<Self> {
        let number = Kind::Category.find(connection, category.as_str())?;
        let item = |number| Item(vec![AnyOf(vec![List::new(Source::Category(number))])]);
        Ok(Self::new(number.map(item).into_iter().collect(), direction, budget))
    }

    /// The events that a query means. `find` gives the number of a type or tag.
    pub(crate) fn of_query(
        query: &Query,
        direction: Direction,
        budget: usize,
        mut find: impl FnMut(Kind, &str) -> Result<Option<i64>>,
    ) -> Result<Self> {
        let mut items = Vec::new();
        for item in query.items() {
            items.extend(Item::of(item, &mut find)?);
        }
        Ok(Self::new(items, direction, budget))
    }

    /// The first candidate at or behind a position. Positions may only move in the direction of
    /// the walk from one call to the next.
    pub(crate) fn seek(&mut self, connection: &Connection, from: u64) -> Result<Option<Candidate>> {
        let mut nearest: Option<Candidate> = None;
        for item in &mut self.items {
            let Some(found) = item.seek(connection, &mut self.walk, from)? else { continue };
            let is_nearer = nearest
                .is_none_or(|nearest| self.walk.is_before(found.position(), nearest.position()));
            // At one position a match says more than a pause.
            let is_match = nearest.is_some_and(|nearest| nearest.position() == found.position())
                && matches!(found, Candidate::Match(_));
            if is_nearer || is_match {
                nearest = Some(found);
            }
        }
        Ok(nearest)
    }
}

/// Events that are in every one of these.
#[derive(Debug)]
struct Item(Vec<AnyOf>);

impl Item {
    /// `None` for an item that no event can match, because a name in it was never stored.
    fn of(
        item: &QueryItem,
        find: &mut impl FnMut(Kind, &str) -> Result<Option<i64>>,
    ) -> Result<Option<Self>> {
        let mut all = Vec::new();
        for tag in &item.tags {
            let Some(number) = find(Kind::Tag, tag.as_str())? else { return Ok(None) };
            all.push(AnyOf(vec![List::new(Source::Tag(number))]));
        }
        let mut types = Vec::new();
        for name in &item.types {
            types.extend(find(Kind::Type, name.as_str())?.map(|no| List::new(Source::Type(no))));
        }
        if !types.is_empty() {
            all.push(AnyOf(types));
        } else if !item.types.is_empty() {
            return Ok(None);
        } else if all.is_empty() {
            all.push(AnyOf(vec![List::new(Source::All)]));
        }
        Ok(Some(Self(all)))
    }

    fn seek(
        &mut self,
        connection: &Connection,
        walk: &mut Walk,
        from: u64,
    ) -> Result<Option<Candidate>> {
        let (mut at, mut agreed) = (from, 0);
        for index in (0..self.0.len()).cycle() {
            // A pause must have come further than where it began, or the page would be no step.
            if walk.budget == 0 && at != from {
                return Ok(Some(Candidate::Paused(at)));
            }
            let Some(found) = self.0[index].seek(connection, walk, at)? else { return Ok(None) };
            agreed = if found == at { agreed + 1 } else { 1 };
            at = found;
            if agreed == self.0.len() {
                return Ok(Some(Candidate::Match(at)));
            }
        }
        Ok(None)
    }
}

/// Events that are in any of these lists.
#[derive(Debug)]
struct AnyOf(Vec<List>);

impl AnyOf {
    fn seek(&mut self, connection: &Connection, walk: &mut Walk, from: u64) -> Result<Option<u64>> {
        let mut nearest: Option<u64> = None;
        for list in &mut self.0 {
            let Some(found) = list.seek(connection, walk, from)? else { continue };
            if nearest.is_none_or(|nearest| walk.is_before(found, nearest)) {
                nearest = Some(found);
            }
        }
        Ok(nearest)
    }
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
struct List {
    source: Source,
    ready: VecDeque<u64>,
    /// How many to fetch next time: more while the list is read through, one after a leap.
    fetch: u32,
    is_at_end: bool,
}

impl List {
    fn new(source: Source) -> Self {
        Self { source, ready: VecDeque::new(), fetch: 1, is_at_end: false }
    }

    fn seek(&mut self, connection: &Connection, walk: &mut Walk, from: u64) -> Result<Option<u64>> {
        let before = self.ready.len();
        while self.ready.front().is_some_and(|front| walk.is_before(*front, from)) {
            self.ready.pop_front();
        }
        if before - self.ready.len() > 1 {
            self.fetch = 1;
        }
        if self.ready.is_empty() && !self.is_at_end {
            self.fetch(connection, walk, from)?;
        }
        Ok(self.ready.front().copied())
    }

    fn fetch(&mut self, connection: &Connection, walk: &mut Walk, from: u64) -> Result<()> {
        let (sql, number) = self.source.statement(walk.direction);
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query((number, signed(from), self.fetch))?;
        while let Some(row) = rows.next()? {
            let (found, last) = (unsigned(row.get(0)?), self.ready.back().copied());
            // What is behind a leap must come behind it, or a walk would never end.
            if walk.is_before(found, from) || last.is_some_and(|it| !walk.is_before(it, found)) {
                let message = format!("an index is out of order: position={found}");
                return Err(Fault::Damage(message));
            }
            self.ready.push_back(found);
        }
        self.is_at_end = self.ready.len() < self.fetch as usize;
        walk.budget = walk.budget.saturating_sub(1 + self.ready.len());
        self.fetch = (self.fetch * 2).min(FETCH_MAX);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
