//! The search for matching events: sorted lists of positions, one per category, type and tag, that
//! are intersected and merged.
//!
//! Lists that an event must be in all of are intersected by leaps: each list seeks to the position
//! of the last one. The work is bounded by the shortest list, and the caller need not know which
//! one that is. Of several items, the one at the nearest position continues. So no item spends the
//! looks of the others, and each position is looked up once.

use factum_kernel::{Direction, Query, QueryItem};

/// Ascending positions that can be searched from either end.
pub trait Postings {
    /// Those of the store.
    type Error;

    /// The nearest position from here on, this one included, in the direction of the walk.
    ///
    /// # Errors
    /// Those of the store.
    fn seek(&mut self, from: u64, direction: Direction) -> Result<Option<u64>, Self::Error>;
}

/// The property that events are found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryTerm<'q> {
    /// Every event.
    All,
    /// The events of a type.
    Type(&'q str),
    /// The events with a tag.
    Tag(&'q str),
}

/// The next position that may match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Candidate {
    /// An event that matches.
    Match(u64),
    /// The looks are used up: no position before this one matches.
    Paused(u64),
}

/// A walk through positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    /// The position where it begins.
    pub from: u64,
    /// The direction that it takes.
    pub direction: Direction,
}

/// The positions of the matching events, in one direction.
#[derive(Debug)]
pub struct Matches<P> {
    direction: Direction,
    items: Vec<Item<P>>,
}

impl<P: Postings> Matches<P> {
    /// The events of one list from a position on; none if there is no list.
    pub fn of_list(list: Option<P>, walk: Walk) -> Self {
        let Walk { from, direction } = walk;
        let items = list.map(|list| Item::new(vec![AnyOf::new(vec![list])], from));
        Self { direction, items: items.into_iter().collect() }
    }

    /// The events that match a query, from a position on. `find` returns the list of a term; `None`
    /// if no event has it.
    ///
    /// # Errors
    /// Those of `find`.
    pub fn of_query<E>(
        query: &Query,
        walk: Walk,
        mut find: impl FnMut(QueryTerm<'_>) -> Result<Option<P>, E>,
    ) -> Result<Self, E> {
        let Walk { from, direction } = walk;
        let mut items = Vec::with_capacity(query.items().len());
        for item in query.items() {
            let all = lists_of(item, &mut find)?;
            items.extend(all.map(|all| Item::new(all, from)));
        }
        Ok(Self { direction, items })
    }

    /// The first candidate at or after a position; `None` if nothing more matches. From one call to
    /// the next, positions may only move in the direction of the walk. Each look into a list takes
    /// one of `looks`. When none is left, the walk pauses before the next match, but never at the
    /// position where it began. A match that was found with the last looks is returned, so a caller
    /// that leaves out matches must stop by itself.
    ///
    /// # Errors
    /// Those of the lists.
    pub fn seek(&mut self, from: u64, looks: &mut usize) -> Result<Option<Candidate>, P::Error> {
        let direction = self.direction;
        if let [Item { all, .. }] = &mut self.items[..]
            && let [any] = &mut all[..]
            && let [(list, _)] = &mut any.0[..]
        {
            // Every position of a single list matches.
            *looks = looks.saturating_sub(1);
            return Ok(list.seek(from, direction)?.map(Candidate::Match));
        }
        self.items.iter_mut().for_each(|item| item.move_to(from, direction));
        loop {
            // At the same position, a match comes before a pause.
            let places = self.items.iter_mut().filter_map(|item| Some((item.at?, item)));
            let order = |at: u64| if direction == Direction::Forward { at } else { !at };
            let nearest = places.min_by_key(|(at, item)| (order(*at), !item.is_match()));
            let Some((at, item)) = nearest else { return Ok(None) };
            if item.is_match() {
                return Ok(Some(Candidate::Match(at)));
            }
            // A pause must be after the walk's beginning, or the page would make no progress.
            if *looks == 0 && at != from {
                return Ok(Some(Candidate::Paused(at)));
            }
            item.leap(at, direction, looks)?;
        }
    }
}

/// The lists that an event must be in to match an item, in all of them; `None` if no event can.
fn lists_of<P: Postings, E>(
    item: &QueryItem,
    find: &mut impl FnMut(QueryTerm<'_>) -> Result<Option<P>, E>,
) -> Result<Option<Vec<AnyOf<P>>>, E> {
    let mut all = Vec::with_capacity(item.tags.len() + 1);
    for tag in &item.tags {
        let Some(list) = find(QueryTerm::Tag(tag.as_str()))? else { return Ok(None) };
        all.push(AnyOf::new(vec![list]));
    }
    let mut types = Vec::with_capacity(item.types.len());
    for name in &item.types {
        types.extend(find(QueryTerm::Type(name.as_str()))?);
    }
    if !types.is_empty() {
        all.push(AnyOf::new(types));
    } else if !item.types.is_empty() {
        return Ok(None);
    } else if all.is_empty() {
        let Some(list) = find(QueryTerm::All)? else { return Ok(None) };
        all.push(AnyOf::new(vec![list]));
    }
    Ok(Some(all))
}

/// The events that are in every one of these.
#[derive(Debug)]
struct Item<P> {
    all: Vec<AnyOf<P>>,
    /// No position before it matches; `None`: nothing matches any more.
    at: Option<u64>,
    /// The number of lists in a row that have this position.
    agreed: usize,
    /// The index of the list that leaps next.
    turn: usize,
}

impl<P: Postings> Item<P> {
    fn new(all: Vec<AnyOf<P>>, from: u64) -> Self {
        Self { all, at: Some(from), agreed: 0, turn: 0 }
    }

    fn is_match(&self) -> bool {
        self.agreed == self.all.len()
    }

    fn move_to(&mut self, from: u64, direction: Direction) {
        if self.at.is_some_and(|at| is_before(at, from, direction)) {
            (self.at, self.agreed) = (Some(from), 0);
        }
    }

    fn leap(&mut self, from: u64, direction: Direction, looks: &mut usize) -> Result<(), P::Error> {
        let found = self.all[self.turn].seek(from, direction, looks)?;
        self.agreed = if found == Some(from) { self.agreed + 1 } else { 1 };
        self.at = found;
        self.turn = (self.turn + 1) % self.all.len();
        Ok(())
    }
}

/// The events that are in any of these lists, each list with its position.
#[derive(Debug)]
struct AnyOf<P>(Vec<(P, Place)>);

#[derive(Debug, Clone, Copy)]
enum Place {
    Unknown,
    At(u64),
    End,
}

impl<P: Postings> AnyOf<P> {
    fn new(lists: Vec<P>) -> Self {
        Self(lists.into_iter().map(|list| (list, Place::Unknown)).collect())
    }

    fn seek(
        &mut self,
        from: u64,
        direction: Direction,
        looks: &mut usize,
    ) -> Result<Option<u64>, P::Error> {
        let mut nearest: Option<u64> = None;
        for (list, place) in &mut self.0 {
            let is_known = match *place {
                Place::Unknown => false,
                Place::At(at) => !is_before(at, from, direction),
                Place::End => true,
            };
            if !is_known {
                *looks = looks.saturating_sub(1);
                *place = list.seek(from, direction)?.map_or(Place::End, Place::At);
            }
            if let Place::At(at) = *place
                && nearest.is_none_or(|nearest| is_before(at, nearest, direction))
            {
                nearest = Some(at);
            }
        }
        Ok(nearest)
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
