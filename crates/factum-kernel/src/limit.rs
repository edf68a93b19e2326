//! Checks of requests against a store's limits, with the same error texts for every store.

use std::{collections::HashSet, hash::Hash};

use crate::{
    batch::{AppendBatch, StreamCheck, StreamWrite},
    document::{ScanQuery, WriteBatch},
    error::StoreError,
    event::{Content, NewEvent},
    guarantee::Limits,
    metadata::METADATA_TEXT_BYTES_MAX,
    position::Position,
    query::{AppendCondition, QUERY_ITEMS_MAX, Query},
    read::{ReadFrom, ReadQuery, Scope},
    store::{Retention, StreamChange},
    tag::TAGS_MAX,
    version::{ExpectedVersion, StreamVersion},
};

/// The beginning of the names of the events that stores append about streams.
const RESERVED: &str = "$stream.";

impl Limits {
    /// Checks that the store can accept a batch.
    ///
    /// # Errors
    /// `Invalid`, with the reason and, for a limit, the actual and the largest size.
    pub fn check_append(&self, batch: &AppendBatch) -> Result<(), StoreError> {
        self.check_counts(batch)?;
        check_streams(batch)?;
        for write in batch.writes() {
            if write.events.is_empty() {
                return invalid(format!(
                    "a write holds no events, use a check: stream={}",
                    write.stream
                ));
            }
        }
        batch.events().try_for_each(|event| self.check_event(event))?;
        check_deletions(batch)?;
        if let Some(id) = first_twice(batch.events().map(|event| event.id)) {
            return invalid(format!("an event id appears twice in the batch: id={id}"));
        }
        batch.conditions().iter().try_for_each(check_condition)
    }

    fn check_counts(&self, batch: &AppendBatch) -> Result<(), StoreError> {
        at_least("batch holds no events", batch.event_count(), 1)?;
        at_most("events in a batch", batch.event_count(), self.batch_events_max)?;
        at_most("bytes in a batch", batch.size(), self.batch_bytes_max)?;
        at_most("checks in a batch", batch.checks().len(), self.batch_conditions_max)?;
        at_most("conditions in a batch", batch.conditions().len(), self.batch_conditions_max)?;
        at_most("types and tags in a batch's conditions", batch.name_count(), self.batch_names_max)
    }

    fn check_event(&self, event: &NewEvent) -> Result<(), StoreError> {
        at_most("bytes in an event", event.size(), self.event_bytes_max)?;
        at_most("tags on an event", event.tags.len(), TAGS_MAX)?;
        if event.name.as_str().is_empty() {
            return invalid("an event has no name".into());
        }
        if event.name.as_str().starts_with(RESERVED) && !is_well_formed_deletion(event) {
            return invalid(format!(
                "event names that begin with {RESERVED} belong to Factum, name it otherwise: \
                 name={}",
                event.name
            ));
        }
        if event.schema_version == 0 {
            return invalid("schema versions count from 1: schema_version=0".into());
        }
        if let Content::Other(number @ ..256) = event.content {
            return invalid(format!(
                "an application numbers its own contents from 256 on: content={number}"
            ));
        }
        if !event.metadata.is_within_limits() {
            return invalid(format!(
                "metadata hold a text of over {METADATA_TEXT_BYTES_MAX} bytes or over 255 entries"
            ));
        }
        Ok(())
    }

    /// Checks that the store can accept a write of documents.
    ///
    /// # Errors
    /// `Invalid`, with the reason and, for a limit, the actual and the largest size.
    pub fn check_write(&self, batch: &WriteBatch) -> Result<(), StoreError> {
        at_most("documents in a write", batch.entries().len(), self.write_documents_max)?;
        for entry in batch.entries() {
            at_least("the key of a document is empty", entry.key.len(), 1)?;
            at_most("bytes in a document's key", entry.key.len(), self.document_key_bytes_max)?;
            let len = entry.value.as_ref().map_or(0, bytes::Bytes::len);
            at_most("bytes in a document", len, self.document_bytes_max)?;
        }
        match first_twice(batch.entries().iter().map(|entry| &entry.key)) {
            Some(key) => invalid(format!("a key appears twice in the write: key={key:?}")),
            None => Ok(()),
        }
    }
}

impl ReadQuery {
    /// Checks the query, for stores.
    ///
    /// # Errors
    /// `Invalid`, with the reason.
    pub fn check(&self) -> Result<(), StoreError> {
        at_least("a page must have room for an event", self.events_max, 1)?;
        if matches!(self.from, ReadFrom::Version(_)) && !matches!(self.scope, Scope::Stream(_)) {
            return invalid("only a stream can be read from a version".into());
        }
        match &self.scope {
            Scope::Query(query) => check_query(query),
            _ => Ok(()),
        }
    }
}

impl ScanQuery {
    /// Checks the query, for stores.
    ///
    /// # Errors
    /// `Invalid`, with the reason.
    pub fn check(&self) -> Result<(), StoreError> {
        at_least("a page must have room for a document", self.documents_max, 1)
    }
}

impl StreamChange {
    /// Checks that the change fits a stream at this version, for stores.
    ///
    /// # Errors
    /// `Invalid`, with the reason.
    pub fn check(&self, version: StreamVersion) -> Result<(), StoreError> {
        match self {
            Self::TruncateBefore(first) if *first > version => invalid(format!(
                "truncation would leave no event, delete the stream instead: before={first} \
                 version={version}"
            )),
            Self::Retain(Retention { events_max: Some(0), .. }) => {
                invalid("retention must keep at least one event".into())
            }
            _ => Ok(()),
        }
    }
}

/// Checks that a batch names each stream correctly. For a batch of one stream this costs nothing.
fn check_streams(batch: &AppendBatch) -> Result<(), StoreError> {
    if batch.writes().len() + batch.checks().len() <= 1 {
        return Ok(());
    }
    let mut seen = HashSet::new();
    for StreamWrite { stream, expected, .. } in batch.writes() {
        if !seen.insert(stream) && *expected != ExpectedVersion::Any {
            return invalid(format!(
                "only the first write of a stream in a batch can expect a version, let later ones \
                 expect any: stream={stream} expected={expected}"
            ));
        }
    }
    match batch.checks().iter().find(|check| !seen.insert(&check.stream)) {
        Some(StreamCheck { stream, .. }) => invalid(format!(
            "a checked stream is already written or checked in the batch, state the expected \
             version there: stream={stream}"
        )),
        None => Ok(()),
    }
}

fn is_well_formed_deletion(event: &NewEvent) -> bool {
    let NewEvent { schema_version, payload, tags, .. } = event;
    event.is_deletion() && *schema_version == 1 && payload.is_empty() && tags.is_empty()
}

/// Checks that a batch writes to no stream before it deletes it.
fn check_deletions(batch: &AppendBatch) -> Result<(), StoreError> {
    if batch.deletions().next().is_none() {
        return Ok(());
    }
    let mut seen = HashSet::new();
    for StreamWrite { stream, events, .. } in batch.writes() {
        for event in events {
            if !seen.insert(stream) && event.is_deletion() {
                return invalid(format!(
                    "a deletion must come before all other events of its stream in the batch: \
                     stream={stream}"
                ));
            }
        }
    }
    Ok(())
}

/// The first item that equals an earlier one. For a single item this costs nothing.
fn first_twice<T: Eq + Hash + Copy>(items: impl Iterator<Item = T>) -> Option<T> {
    let mut items = items.peekable();
    let first = items.next()?;
    items.peek()?;
    let mut seen = HashSet::from([first]);
    items.find(|item| !seen.insert(*item))
}

/// Refuses a condition that can never fail: it would protect nothing, and the caller would not
/// know.
fn check_condition(condition: &AppendCondition) -> Result<(), StoreError> {
    let AppendCondition { fail_if_events_match, after } = condition;
    check_query(fail_if_events_match)?;
    if fail_if_events_match.items().is_empty() {
        return invalid("a condition can match no event, name types or tags".into());
    }
    if *after > Position::MAX {
        return invalid(format!(
            "a condition's position is beyond the end of any log, use the position that was read: \
             after={after}"
        ));
    }
    Ok(())
}

fn check_query(query: &Query) -> Result<(), StoreError> {
    at_most("items in a query", query.items().len(), QUERY_ITEMS_MAX)?;
    for item in query.items() {
        at_most("types in a query item", item.types.len(), QUERY_ITEMS_MAX)?;
        at_most("tags in a query item", item.tags.len(), QUERY_ITEMS_MAX)?;
    }
    Ok(())
}

fn at_most(what: &str, actual: usize, max: usize) -> Result<(), StoreError> {
    if actual <= max {
        Ok(())
    } else {
        invalid(format!("too many {what}: actual={actual} max={max}"))
    }
}

fn at_least(what: &str, actual: usize, min: usize) -> Result<(), StoreError> {
    if actual >= min { Ok(()) } else { invalid(what.into()) }
}

fn invalid(message: String) -> Result<(), StoreError> {
    Err(StoreError::invalid(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::EventName, id::EventId, query::Matching, stream::StreamId, time::Timestamp,
        version::ExpectedVersion,
    };

    fn refusal(change: impl FnOnce(&mut NewEvent)) -> String {
        let id = EventId::derived(Timestamp::EPOCH, b"x");
        let mut event = NewEvent::new(id, EventName::from_static("n"), Content::Cbor, "");
        change(&mut event);
        let stream = StreamId::new("s", "k").unwrap();
        let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [event]);
        Limits::default().check_append(&batch).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_would_read_back_as_something_else_is_refused() {
        assert_eq!(refusal(|_| {}), "");
        assert!(refusal(|event| event.schema_version = 0).contains("count from 1"));
        assert!(refusal(|event| event.content = Content::Other(1)).contains("from 256"));
        assert_eq!(refusal(|event| event.content = Content::Other(256)), "");
    }

    #[test]
    fn an_enum_of_many_types_is_several_items_of_a_query() {
        let names = (0..130).map(|n| EventName::parse(&format!("t.{n}")).unwrap());
        let query = Matching::types(names).resolve(None).unwrap();
        assert_eq!(query.items().len(), 3);
        assert!(check_query(&query).is_ok() && query.matches("t.129", []));
    }
}
