//! Queries: events selected by type and tag.

use crate::{
    event::{EventName, NewEvent},
    position::Position,
    schema::{EncodeError, Event},
    tag::{InvalidTag, Tag, TagKey},
};

/// The most items in a query, and the most types or tags in an item.
pub const QUERY_ITEMS_MAX: usize = 64;

/// Selects events of certain types with certain tags: an event matches if any item matches it.
///
/// A query without items matches nothing.
///
/// ```
/// use factum_kernel::{Query, Tag};
///
/// let query = Query::tag(Tag::new("course", "rust-101")?);
/// assert!(query.matches("course.opened", ["course:rust-101", "term:1"]));
/// assert!(!query.matches("course.opened", ["course:rust-102"]));
/// # Ok::<(), factum_kernel::InvalidTag>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    items: Vec<QueryItem>,
}

/// Matches an event that has any of the types and all of the tags. No types means every type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueryItem {
    /// The event has any of these types; an empty list allows every type.
    pub types: Vec<EventName>,
    /// The event has all of these tags; an empty list requires none.
    pub tags: Vec<Tag>,
}

impl QueryItem {
    fn matches(&self, event_type: &str, tags: &[&str]) -> bool {
        (self.types.is_empty() || self.types.iter().any(|name| name.as_str() == event_type))
            && self.tags.iter().all(|tag| tags.contains(&tag.as_str()))
    }
}

impl Query {
    /// Selects the events that any of the items matches.
    pub fn new(items: impl IntoIterator<Item = QueryItem>) -> Self {
        Self { items: items.into_iter().collect() }
    }

    /// Selects the events with this tag.
    pub fn tag(tag: Tag) -> Self {
        Self::new([QueryItem { types: vec![], tags: vec![tag] }])
    }

    /// Selects the events of any of these types; without types, no events.
    pub fn types(types: impl IntoIterator<Item = EventName>) -> Self {
        let types: Vec<_> = types.into_iter().collect();
        // An item without types would match every event.
        let item = (!types.is_empty()).then_some(QueryItem { types, tags: vec![] });
        Self::new(item)
    }

    /// The items.
    pub fn items(&self) -> &[QueryItem] {
        &self.items
    }

    /// Checks the query against the events of the same decision: a tag must not be plain in the
    /// query and hashed on an event under the same name, or the other way round.
    pub(crate) fn check_kinds(&self, events: &[NewEvent]) -> Result<(), InvalidTag> {
        let ours = self.items.iter().flat_map(|item| &item.tags);
        for (ours, theirs) in ours.flat_map(|tag| events.iter().map(move |event| (tag, event))) {
            let same = |tag: &&Tag| tag.name() == ours.name();
            if theirs.tags.iter().find(same).is_some_and(|t| t.is_hashed() != ours.is_hashed()) {
                return Err(InvalidTag::Mixed(ours.name().into()));
            }
        }
        Ok(())
    }

    /// True if an event of this type with these tags matches.
    pub fn matches<'a>(&self, event_type: &str, tags: impl IntoIterator<Item = &'a str>) -> bool {
        let tags: Vec<&str> = tags.into_iter().collect();
        self.items.iter().any(|item| item.matches(event_type, &tags))
    }
}

/// Fails an append if an event after a position matches: the dynamic consistency boundary of
/// <https://dcb.events>.
///
/// A store refuses a condition that can never fail: a query without items, or a position beyond
/// [`Position::MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendCondition {
    /// The events that must not be there.
    pub fail_if_events_match: Query,
    /// Only events after this position count; [`Position::ZERO`] means all events.
    pub after: Position,
}

/// A [`Query`] as rules write it: its tags are not yet checked, and hashed tags not yet hashed.
///
/// Rules are pure and hold no key. The repository that executes a decision resolves the query; a
/// name or value that no tag can have is an error of that execution.
///
/// ```
/// use factum_kernel::{Matching, TagKey};
///
/// let taken = Matching::hashed_tag("email", "ada@example.org");
/// let query = taken.resolve(Some(&TagKey::new([7; 32])))?;
/// assert_eq!(query.items().len(), 1);
/// # Ok::<(), factum_kernel::InvalidTag>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matching {
    items: Vec<DraftItem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct DraftItem {
    types: Vec<EventName>,
    tags: Vec<DraftTag>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum DraftTag {
    Ready(Tag),
    Plain { name: String, value: String },
    Hashed { name: String, value: String },
}

impl DraftTag {
    fn resolve(&self, key: Option<&TagKey>) -> Result<Tag, InvalidTag> {
        match self {
            Self::Ready(tag) => Ok(tag.clone()),
            Self::Plain { name, value } => Tag::new(name, value),
            Self::Hashed { name, value } => {
                key.ok_or_else(|| InvalidTag::NoKey(name.clone()))?.hashed(name, value)
            }
        }
    }
}

impl Matching {
    /// Selects the events with the tag `name:value`.
    pub fn tag(name: &str, value: impl std::fmt::Display) -> Self {
        Self::one(DraftTag::Plain { name: name.into(), value: value.to_string() })
    }

    /// Selects the events with the keyed hash of this value as a tag.
    pub fn hashed_tag(name: &str, value: impl std::fmt::Display) -> Self {
        Self::one(DraftTag::Hashed { name: name.into(), value: value.to_string() })
    }

    /// Selects all events of an enum.
    pub fn events<E: Event>() -> Self {
        Self::types(E::types().into_iter().map(|found| found.name))
    }

    /// Selects all events of these types, with the number of items that this needs.
    pub(crate) fn types(types: impl Iterator<Item = EventName>) -> Self {
        let types: Vec<EventName> = types.collect();
        let item = |types: &[EventName]| DraftItem { types: types.to_vec(), tags: vec![] };
        Self { items: types.chunks(QUERY_ITEMS_MAX).map(item).collect() }
    }

    fn one(tag: DraftTag) -> Self {
        Self { items: vec![DraftItem { types: vec![], tags: vec![tag] }] }
    }

    /// Selects the events that match both. The result has at most the product of the numbers of
    /// items.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let items = self.items.iter().flat_map(|left| {
            other.items.iter().map(|right| DraftItem {
                types: both_types(&left.types, &right.types),
                tags: left.tags.iter().chain(&right.tags).cloned().collect(),
            })
        });
        // Two disjoint lists of types match nothing. An empty list would match every type.
        let possible = |item: &DraftItem| item.types.first().is_none_or(|t| !t.as_str().is_empty());
        Self { items: items.filter(possible).collect() }
    }

    /// Selects the events that match either.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.items.extend(other.items);
        self
    }

    /// Resolves the query that a decision depends on: a guard, or the query of a model.
    ///
    /// # Errors
    /// Those of [`resolve`](Self::resolve), and `MatchesNothing`.
    pub(crate) fn resolve_guard(&self, key: Option<&TagKey>) -> Result<Query, EncodeError> {
        let query = self.resolve(key)?;
        if query.items.is_empty() { Err(EncodeError::MatchesNothing) } else { Ok(query) }
    }

    /// Returns the query with its tags checked and hashed.
    ///
    /// # Errors
    /// A name or value is not allowed, or a hashed tag has no key.
    pub fn resolve(&self, key: Option<&TagKey>) -> Result<Query, InvalidTag> {
        let item = |item: &DraftItem| {
            let tags = item.tags.iter().map(|tag| tag.resolve(key)).collect::<Result<_, _>>()?;
            Ok(QueryItem { types: item.types.clone(), tags })
        };
        Ok(Query { items: self.items.iter().map(item).collect::<Result<_, _>>()? })
    }
}

/// The types in both lists. An empty list stands for every type; disjoint lists give the one name
/// that no event has.
fn both_types(left: &[EventName], right: &[EventName]) -> Vec<EventName> {
    if left.is_empty() || right.is_empty() {
        return left.iter().chain(right).cloned().collect();
    }
    let both: Vec<_> = left.iter().filter(|name| right.contains(name)).cloned().collect();
    if both.is_empty() { vec![EventName::IMPOSSIBLE] } else { both }
}

impl From<Tag> for Matching {
    fn from(tag: Tag) -> Self {
        Self::one(DraftTag::Ready(tag))
    }
}

impl From<Query> for Matching {
    fn from(query: Query) -> Self {
        let items = query.items.into_iter().map(|item| DraftItem {
            types: item.types,
            tags: item.tags.into_iter().map(DraftTag::Ready).collect(),
        });
        Self { items: items.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(names: &[&'static str]) -> Matching {
        Query::types(names.iter().map(|name| EventName::from_static(name))).into()
    }

    #[test]
    fn any_item_any_type_all_tags() {
        let both = Matching::tag("a", 1).and(Matching::tag("b", 2)).and(types(&["x", "y"]));
        let query = both.or(types(&["z"])).resolve(None).unwrap();
        assert!(query.matches("x", ["a:1", "b:2"]));
        assert!(query.matches("z", []));
        assert!(!query.matches("x", ["a:1"]));
        assert!(!query.matches("w", ["a:1", "b:2"]));
    }

    #[test]
    fn types_that_exclude_one_another_match_nothing() {
        let none = types(&["x"]).and(types(&["y"])).resolve(None).unwrap();
        assert!(none.items().is_empty());
        assert!(!Query::default().matches("x", []));
        assert_eq!(Query::types([]), Query::default());
    }
}
