//! An index of events that are not stored yet, by types and tags. A condition of one member of a
//! group may match the events of an earlier one.

use factum_kernel::{NewEvent, Position, Query, QueryItem, Tag};
use hashbrown::HashMap;

/// Events in the order of their positions, found by type and tag. The cost of a search grows with
/// the names of the query, not with the product of names and events.
///
/// ```
/// use factum_backend::EventIndex;
/// use factum_kernel::{Content, EventId, EventName, NewEvent, Position, Query, Tag, Timestamp};
///
/// let id = EventId::derived(Timestamp::EPOCH, b"opened");
/// let name = EventName::from_static("account.opened");
/// let opened = NewEvent::new(id, name, Content::Json, "{}").with_tag(Tag::new("email", "ada")?);
/// let mut index = EventIndex::default();
/// index.push(Position::new(7), &opened);
/// let taken = Query::tag(Tag::new("email", "ada")?);
/// assert_eq!(index.first_match(&taken, Position::ZERO), Some(Position::new(7)));
/// assert_eq!(index.first_match(&taken, Position::new(7)), None);
/// # Ok::<(), factum_kernel::InvalidTag>(())
/// ```
#[derive(Debug, Default)]
pub struct EventIndex<'g> {
    events: Vec<(Position, &'g NewEvent)>,
    /// The indexes of the events with a type or a tag, in order.
    by_type: HashMap<&'g str, Vec<usize>>,
    by_tag: HashMap<&'g str, Vec<usize>>,
}

impl<'g> EventIndex<'g> {
    /// Adds an event. Its position must be after all others.
    pub fn push(&mut self, position: Position, event: &'g NewEvent) {
        let place = self.events.len();
        self.events.push((position, event));
        self.by_type.entry(event.name.as_str()).or_default().push(place);
        for tag in &event.tags {
            self.by_tag.entry(tag.as_str()).or_default().push(place);
        }
    }

    /// The number of events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Returns whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The first event after a position that matches the query.
    pub fn first_match(&self, query: &Query, after: Position) -> Option<Position> {
        let from = self.events.partition_point(|(position, _)| *position <= after);
        if from == self.events.len() {
            return None;
        }
        let places = query.items().iter().filter_map(|item| self.first_place(item, from));
        places.min().map(|place| self.events[place].0)
    }

    fn first_place(&self, item: &QueryItem, from: usize) -> Option<usize> {
        if item.types.is_empty() && item.tags.is_empty() {
            return Some(from);
        }
        let types = item.types.iter().filter_map(|name| self.by_type.get(name.as_str()));
        let by_type: Vec<&[usize]> = types.map(|places| at_or_after(places, from)).collect();
        let mut lists = by_type;
        // A match is in the list of each tag, and in the list of one of the types.
        for tag in &item.tags {
            let tagged = at_or_after(self.by_tag.get(tag.as_str())?, from);
            let looks: usize = lists.iter().map(|places| places.len()).sum();
            if tagged.len() < looks || (lists.is_empty() && item.types.is_empty()) {
                lists = vec![tagged];
            }
        }
        let is_meant = |place: &usize| is_meant(item, self.events[*place].1);
        lists.iter().filter_map(|places| places.iter().copied().find(is_meant)).min()
    }
}

/// The indexes of a list from one on.
fn at_or_after(places: &[usize], from: usize) -> &[usize] {
    &places[places.partition_point(|place| *place < from)..]
}

fn is_meant(item: &QueryItem, event: &NewEvent) -> bool {
    let has = |tag: &Tag| event.tags.iter().any(|other| other.as_str() == tag.as_str());
    (item.types.is_empty() || item.types.contains(&event.name)) && item.tags.iter().all(has)
}

#[cfg(test)]
mod tests;
