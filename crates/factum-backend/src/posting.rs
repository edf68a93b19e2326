//! Which events match a query: sorted lists of positions, one per category, type and tag, crossed
//! and merged.
//!
//! Lists that an event must be in all of are crossed by leaps: each list jumps to where the last
//! one stands, so that the work is bounded by the shortest, and nobody has to know beforehand which
//! that is. Of several items the one that is furthest behind goes on, so that none spends the work
//! of the others, and each position is looked up once.

use factum_kernel::{Direction, Query, QueryItem};

/// Ascending positions, asked from one side or the other.
pub trait Postings {
    /// Those of the store.
    type Error;

    /// The nearest position from here on, this one included, in the direction of the walk.
    ///
    /// # Errors
    /// Those of the store.
    fn seek(&mut self, from: u64, direction: Direction) -> Result<Option<u64>, Self::Error>;
}

/// What events are found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryTerm<'q> {
    /// Every event.
    All,
    /// The events of a type.
    Type(&'q str),
    /// The events with a tag.
    Tag(&'q str),
}

/// The next place at which a match may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Candidate {
    /// An event that matches.
    Match(u64),
    /// The looks are used up: nothing before this position matches.
    Paused(u64),
}

/// The positions of the events that match, in one direction.
#[derive(Debug)]
pub struct Matches<P> {
    direction: Direction,
    items: Vec<Item<P>>,
}

impl<P: Postings> Matches<P> {
    /// The events in one list from a position on; none where there is no list.
    pub fn of_list(list: Option<P>, (from, direction): (u64, Direction)) -> Self {
        let items = list.map(|list| Item::new(vec![AnyOf::new(vec![list])], from));
        Self { direction, items: items.into_iter().collect() }
    }

    /// The events that a query means, from a position on. `find` gives the list of a term; `None`
    /// if no event has it.
    ///
    /// # Errors
    /// Those of `find`.
    pub fn of_query<E>(
        query: &Query,
        (from, direction): (u64, Direction),
        mut find: impl FnMut(QueryTerm<'_>) -> Result<Option<P>, E>,
    ) -> Result<Self, E> {
        let mut items = Vec::with_capacity(query.items().len());
        for item in query.items() {
            let all = lists_of(item, &mut find)?;
            items.extend(all.map(|all| Item::new(all, from)));
        }
        Ok(Self { direction, items })
    }

    /// The first candidate at or behind a position; `None` if nothing more matches. Positions may
    /// only move in the direction of the walk from one call to the next. Each look into a list
    /// takes one of `looks`; when there are none left the walk pauses before the next match, but
    /// not where it began. A match that is found with the last ones is told, so that a caller who
    /// leaves matches out has to stop by itself.
    ///
    /// # Errors
    /// Those of the lists.
    pub fn seek(&mut self, from: u64, looks: &mut usize) -> Result<Option<Candidate>, P::Error> {
        let direction = self.direction;
        if let [Item { all, .. }] = &mut self.items[..]
            && let [any] = &mut all[..]
            && let [(list, _)] = &mut any.0[..]
        {
            // Everything in a list that is alone matches.
            *looks = looks.saturating_sub(1);
            return Ok(list.seek(from, direction)?.map(Candidate::Match));
        }
        self.items.iter_mut().for_each(|item| item.move_to(from, direction));
        loop {
            // At one position a match says more than a pause.
            let places = self.items.iter_mut().filter_map(|item| Some((item.at?, item)));
            let order = |at: u64| if direction == Direction::Forward { at } else { !at };
            let nearest = places.min_by_key(|(at, item)| (order(*at), !item.is_match()));
            let Some((at, item)) = nearest else { return Ok(None) };
            if item.is_match() {
                return Ok(Some(Candidate::Match(at)));
            }
            // A pause must have come further than where it began, or the page would be no step.
            if *looks == 0 && at != from {
                return Ok(Some(Candidate::Paused(at)));
            }
            item.leap(at, direction, looks)?;
        }
    }
}

/// What an event must be in, all of it, to match an item; `None` if no event can.
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

/// Events that are in every one of these.
#[derive(Debug)]
struct Item<P> {
    all: Vec<AnyOf<P>>,
    /// Nothing before it matches; `None`: nothing matches any more.
    at: Option<u64>,
    /// How many in a row have an event there.
    agreed: usize,
    /// Whose turn it is to leap.
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

/// Events that are in any of these lists, each with where it stands.
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

/// Whether a position comes before another on a walk.
fn is_before(position: u64, other: u64, direction: Direction) -> bool {
    match direction {
        Direction::Forward => position < other,
        Direction::Backward => position > other,
    }
}

#[cfg(test)]
mod tests;
