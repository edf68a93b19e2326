//! Posting lists: the positions at which a part of the index has a term. [`Matches`] intersects and
//! merges them, so that the events themselves need not be read.

use factum_backend::{Matches, Postings, QueryTerm, Walk};
use factum_kernel::{Direction, Scope, StoreError};

use crate::{disk::spend, error, key::Term, run::reader::Chunks};

/// The cost of one look into a list where reads must not wait, as the bytes that could be read
/// instead.
const LOOK_BYTES: usize = 512;

/// A part of the index that has posting lists.
pub(crate) trait TermSource {
    /// The positions of a term; `None` if there are certainly none.
    fn list(&self, term: Term<'_>) -> Option<List<'_>>;

    /// The first and the last position that this part covers.
    fn range(&self) -> (u64, u64);
}

/// The positions of a term, or all positions.
pub(crate) enum List<'s> {
    All((u64, u64)),
    Slice(Slice<'s>),
    Chunks(Chunks<'s>),
}

impl Postings for List<'_> {
    type Error = StoreError;

    fn seek(&mut self, from: u64, direction: Direction) -> Result<Option<u64>, StoreError> {
        spend(LOOK_BYTES).map_err(|e| error::disk("looking into the index", "", e))?;
        match self {
            Self::All((first, last)) => Ok(match direction {
                _ if *first > *last => None,
                Direction::Forward => (from <= *last).then(|| from.max(*first)),
                Direction::Backward => (from >= *first).then(|| from.min(*last)),
            }),
            Self::Slice(slice) => Ok(slice.seek(from, direction)),
            Self::Chunks(chunks) => chunks.seek(from, direction),
        }
    }
}

/// The number of terms to look up in each part of the index for a scope.
pub(crate) fn term_count(scope: &Scope) -> usize {
    match scope {
        Scope::Query(query) => query.items().iter().map(|it| it.types.len() + it.tags.len()).sum(),
        _ => 1,
    }
}

/// The positions that match the scope of a read. A stream's positions come from elsewhere.
pub(crate) fn of_scope<'s>(
    source: &'s dyn TermSource,
    scope: &Scope,
    walk: Walk,
) -> Result<Matches<List<'s>>, StoreError> {
    let find = |term: QueryTerm<'_>| {
        spend(LOOK_BYTES).map_err(|e| error::disk("looking into the index", "", e))?;
        Ok(match term {
            QueryTerm::All => Some(List::All(source.range())),
            QueryTerm::Type(name) => source.list(Term::Type(name)),
            QueryTerm::Tag(tag) => source.list(Term::Tag(tag)),
        })
    };
    match scope {
        Scope::Category(category) => {
            Ok(Matches::of_list(source.list(Term::Category(category.as_str())), walk))
        }
        Scope::Query(query) => Matches::of_query(query, walk, find),
        Scope::Log | Scope::Stream(_) => {
            Ok(Matches::of_list(Some(List::All(source.range())), walk))
        }
    }
}

/// Returns whether a position comes later in the read than another.
pub(crate) fn is_further(position: u64, than: u64, direction: Direction) -> bool {
    match direction {
        Direction::Forward => position > than,
        Direction::Backward => position < than,
    }
}

/// Positions in memory, relative to the first of the segment.
pub(crate) struct Slice<'s> {
    pub(crate) first: u64,
    pub(crate) relative: &'s [u32],
}

impl Slice<'_> {
    fn seek(&self, from: u64, direction: Direction) -> Option<u64> {
        let at = |index: usize| self.relative.get(index).map(|it| self.first + u64::from(*it));
        let before =
            |limit: u64| self.relative.partition_point(|it| self.first + u64::from(*it) < limit);
        match direction {
            Direction::Forward => at(before(from)),
            Direction::Backward => before(from.saturating_add(1)).checked_sub(1).and_then(at),
        }
    }
}

#[cfg(test)]
mod tests;
