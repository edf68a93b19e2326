//! Where events match: sorted positions of terms, met and joined by jumping ahead in each, so that
//! no event is read to find out.

use factum_core::{Direction, Query, QueryItem, Scope, StoreError};

use crate::key::Term;

/// Ascending positions, asked from one side or the other.
pub(crate) trait Postings {
    /// The nearest position from here on, this one included, in the direction of the read.
    fn seek(&mut self, from: u64, direction: Direction) -> Result<Option<u64>, StoreError>;
}

/// A part of the index that knows where terms are.
pub(crate) trait TermSource {
    /// The positions of a term.
    fn postings(&self, term: Term<'_>) -> Box<dyn Postings + '_>;

    /// The first and the last position of which it knows.
    fn range(&self) -> (u64, u64);
}

/// The positions of what a read asks for; of a stream it is not for us to say.
pub(crate) fn of_scope<'s>(source: &'s dyn TermSource, scope: &Scope) -> Box<dyn Postings + 's> {
    match scope {
        Scope::Category(category) => source.postings(Term::Category(category.as_str())),
        Scope::Query(query) => of_query(source, query),
        Scope::Log | Scope::Stream(_) => Box::new(All(source.range())),
    }
}

/// The positions that any item of a query matches.
pub(crate) fn of_query<'s>(source: &'s dyn TermSource, query: &Query) -> Box<dyn Postings + 's> {
    any(query.items().iter().map(|item| of_item(source, item)).collect())
}

fn of_item<'s>(source: &'s dyn TermSource, item: &QueryItem) -> Box<dyn Postings + 's> {
    let mut all: Vec<_> =
        item.tags.iter().map(|tag| source.postings(Term::Tag(tag.as_str()))).collect();
    if !item.types.is_empty() {
        let types = item.types.iter().map(|name| source.postings(Term::Type(name.as_str())));
        all.push(any(types.collect()));
    }
    if all.is_empty() {
        return Box::new(All(source.range()));
    }
    if all.len() == 1 { all.remove(0) } else { Box::new(Every(all)) }
}

fn any<'s>(mut postings: Vec<Box<dyn Postings + 's>>) -> Box<dyn Postings + 's> {
    if postings.len() == 1 { postings.remove(0) } else { Box::new(Any(postings)) }
}

/// Every position of a range.
struct All((u64, u64));

impl Postings for All {
    fn seek(&mut self, from: u64, direction: Direction) -> Result<Option<u64>, StoreError> {
        let Self((first, last)) = *self;
        Ok(match direction {
            _ if first > last => None,
            Direction::Forward => (from <= last).then(|| from.max(first)),
            Direction::Backward => (from >= first).then(|| from.min(last)),
        })
    }
}

/// Positions in any of several.
struct Any<'s>(Vec<Box<dyn Postings + 's>>);

impl Postings for Any<'_> {
    fn seek(&mut self, from: u64, direction: Direction) -> Result<Option<u64>, StoreError> {
        let mut nearest = None;
        for postings in &mut self.0 {
            if let Some(found) = postings.seek(from, direction)?
                && nearest.is_none_or(|nearest| is_further(nearest, found, direction))
            {
                nearest = Some(found);
            }
        }
        Ok(nearest)
    }
}

/// Positions in each of several.
struct Every<'s>(Vec<Box<dyn Postings + 's>>);

impl Postings for Every<'_> {
    fn seek(&mut self, from: u64, direction: Direction) -> Result<Option<u64>, StoreError> {
        let mut candidate = from;
        let mut agreed = 0;
        // Round and round, until all have agreed since the candidate moved last.
        for index in (0..self.0.len()).cycle() {
            if agreed == self.0.len() {
                break;
            }
            let Some(found) = self.0[index].seek(candidate, direction)? else { return Ok(None) };
            agreed = if found == candidate { agreed + 1 } else { 1 };
            candidate = found;
        }
        Ok(Some(candidate))
    }
}

/// Whether a position comes later in the read than another.
pub(crate) fn is_further(position: u64, than: u64, direction: Direction) -> bool {
    match direction {
        Direction::Forward => position > than,
        Direction::Backward => position < than,
    }
}

/// Positions in memory, counted from the first of the segment.
pub(crate) struct Slice<'s> {
    pub(crate) first: u64,
    pub(crate) relative: &'s [u32],
}

impl Postings for Slice<'_> {
    fn seek(&mut self, from: u64, direction: Direction) -> Result<Option<u64>, StoreError> {
        let at = |index: usize| self.relative.get(index).map(|it| self.first + u64::from(*it));
        let before =
            |limit: u64| self.relative.partition_point(|it| self.first + u64::from(*it) < limit);
        Ok(match direction {
            Direction::Forward => at(before(from)),
            Direction::Backward => before(from.saturating_add(1)).checked_sub(1).and_then(at),
        })
    }
}

#[cfg(test)]
mod tests;
