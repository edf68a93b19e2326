//! Batches of the category `account`, for tests of a store that need some events and look at none.
//!
//! ```
//! use factum_testing::batch;
//!
//! let opened = batch::one("ada");
//! assert_eq!(opened.writes()[0].stream, batch::stream("ada"));
//! let tagged = batch::tagged("ada", &["email:ada@example.org"]);
//! assert_eq!(tagged.event_count(), 1);
//! ```

use factum_kernel::{
    AppendBatch, Category, Clock, Content, EventId, EventName, ExpectedVersion, IdSource, NewEvent,
    StreamId, SystemClock, SystemIds, Tag,
};

/// An id that no other event has, made now.
pub fn new_id() -> EventId {
    EventId::new(SystemIds.uuid(SystemClock.now()))
}

/// An event `account.opened` with this payload and without tags.
pub fn event(payload: &str) -> NewEvent {
    let name = EventName::from_static("account.opened");
    NewEvent::new(new_id(), name, Content::Json, payload.to_owned())
}

/// The category of all these events.
pub fn category() -> Category {
    Category::new("account").expect("it is a valid name")
}

/// The stream of the account with this key.
///
/// # Panics
/// If it is not a valid key.
pub fn stream(key: &str) -> StreamId {
    StreamId::new("account", key).expect("tests use valid keys")
}

/// A batch of one event, at any version of the account with this key.
///
/// # Panics
/// If it is not a valid key.
pub fn one(key: &str) -> AppendBatch {
    tagged(key, &[])
}

/// A batch of one event with these tags, at any version of the account with this key.
///
/// # Panics
/// If it is not a valid key, or one of the tags is not valid.
pub fn tagged(key: &str, tags: &[&str]) -> AppendBatch {
    let tag = |text: &&str| Tag::parse(text).expect("tests use valid tags");
    let event = tags.iter().map(tag).fold(event("{}"), NewEvent::with_tag);
    AppendBatch::new().write(stream(key), ExpectedVersion::Any, [event])
}
