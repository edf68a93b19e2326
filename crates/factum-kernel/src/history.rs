//! The events of one aggregate, typed.

use std::{fmt, sync::Arc};

use crate::{
    load::LoadError, read::ReadQuery, read_log::ReadLog, recorded::RecordedEvent, schema::Event,
    store::EventStore, stream::StreamId,
};

/// One recorded event, decoded. Upcasters may turn it into several events or none.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HistoryEntry<E> {
    /// The event as it was recorded.
    pub recorded: RecordedEvent,
    /// The events that it means to this program.
    pub events: Vec<E>,
}

/// The kept events of one aggregate, oldest first, read page by page.
pub struct History<E> {
    read: ReadLog,
    event: std::marker::PhantomData<fn() -> E>,
}

impl<E: Event> History<E> {
    pub(crate) fn new(store: Arc<dyn EventStore>, stream: StreamId) -> Self {
        let read = ReadLog::new(store, ReadQuery::stream(stream));
        Self { read, event: std::marker::PhantomData }
    }

    /// Returns the next event; `None` at the end.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Result<HistoryEntry<E>, LoadError>> {
        let recorded = match self.read.next().await? {
            Ok(recorded) => recorded,
            Err(error) => return Some(Err(error.into_store_error().into())),
        };
        let events = recorded.decode();
        Some(events.map(|events| HistoryEntry { recorded, events }).map_err(Into::into))
    }

    /// Reads all events that are left.
    ///
    /// # Errors
    /// The first error of the read.
    pub async fn collect(mut self) -> Result<Vec<HistoryEntry<E>>, LoadError> {
        let mut entries = Vec::new();
        while let Some(entry) = self.next().await {
            entries.push(entry?);
        }
        Ok(entries)
    }
}

impl<E> fmt::Debug for History<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read.fmt(f)
    }
}
