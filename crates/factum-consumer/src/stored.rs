//! The stored progress of consumers, for operators and other processes.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use factum_kernel::{
    Checkpoint, DocumentStore, ExpectedRevision, Kernel, KeyRange, Position, ScanQuery, StoreError,
    StreamId, WriteBatch, WriteError,
};
use serde::{Deserialize, Serialize};

use crate::{
    dead_letter::{DeadLetter, StoredLetter},
    lag::Wanted,
    lease::ring,
    name::ConsumerName,
    progress::{self, Progress, StoredMark},
    snapshot::SnapshotHeader,
};

/// The stored progress of a consumer. A store knows nothing of a consumer whose target is another
/// database.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredConsumer {
    /// The name; that of a projection includes its version.
    pub name: String,
    /// The stored checkpoint; a running consumer may be further.
    pub checkpoint: Option<Checkpoint>,
    /// The position after which it began; `None` if it has no progress, or its progress does not
    /// say.
    pub began_after: Option<Position>,
    /// True if the consumer runs, as far as this process can tell: it did not stop in order, and
    /// its process is not [known to have ended](Self::has_died).
    pub is_at_work: bool,
    /// True if the process that ran the consumer has ended without stopping it. Known on the
    /// machine of that process.
    pub has_died: bool,
    /// The process that ran the consumer last. Unknown if that was an earlier version.
    pub process: Option<u32>,
    /// The events that the consumer wants. Unknown if an earlier version ran it last.
    pub(crate) wanted: Option<Wanted>,
    /// The dead letters, by stream.
    pub dead_letters: Vec<DeadLetter>,
    /// The number of stored orders that the consumer has not carried out yet.
    pub orders: usize,
}

/// The action for a parked event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Release {
    /// The event is handled again.
    Retry,
    /// The event is skipped.
    Discard,
}

/// A stored order, which waits for the consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOrder {
    pub(crate) stream: String,
    /// The version of the parked event. The order applies to no later event.
    pub(crate) version: u64,
    pub release: Release,
}

/// The consumers with progress in a store, by name.
///
/// # Errors
/// Errors of the store; `Corrupt` for a document that can't be read.
pub async fn stored_consumers(
    documents: &dyn DocumentStore,
) -> Result<Vec<StoredConsumer>, StoreError> {
    let mut found: Vec<StoredConsumer> = Vec::new();
    let mut rest = Some(KeyRange::prefix("$consumer/"));
    while let Some(range) = rest {
        let page = documents.scan(ScanQuery::new(range)).await?;
        for document in page.documents {
            let Some((name, what)) = parts(&document.key) else { continue };
            if found.last().is_none_or(|it| it.name != name) {
                found.push(StoredConsumer {
                    name: name.into(),
                    checkpoint: None,
                    began_after: None,
                    is_at_work: false,
                    has_died: false,
                    process: None,
                    wanted: None,
                    dead_letters: Vec::new(),
                    orders: 0,
                });
            }
            let consumer = found.last_mut().expect("one was just added");
            consumer.note(what, &document.value).map_err(|error| {
                let text = format!("the stored progress of a consumer can't be read: {error}");
                StoreError::corrupt(format!("{text}: consumer={name} document={what}"))
            })?;
        }
        rest = page.rest;
    }
    Ok(found)
}

impl StoredConsumer {
    /// True for the consumer of this name and for its partitions: `mails`, `mails#0`.
    pub fn is_of(&self, name: &str) -> bool {
        let rest = self.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
    }

    /// The number of streams that wait for a parked event.
    pub fn parked(&self) -> usize {
        self.dead_letters.len() - self.waiting()
    }

    /// The number of streams that wait for a program that can read their next event.
    pub fn waiting(&self) -> usize {
        self.dead_letters.iter().filter(|letter| letter.is_unread).count()
    }

    fn note(&mut self, what: &str, value: &[u8]) -> Result<(), String> {
        match what.split_once('/') {
            Some(("letter", stream)) => self.note_letter(stream, value)?,
            Some(("order", _)) => self.orders += 1,
            None if what == "progress" => {
                let progress: Progress = read(value)?;
                (self.checkpoint, self.began_after) = (progress.checkpoint, progress.began_after);
            }
            None if what == "mark" => {
                let stored: StoredMark<'_> = read(value)?;
                self.has_died = stored.has_died();
                self.is_at_work = stored.at_work.is_some() && !self.has_died;
                self.process = (stored.process != 0).then_some(stored.process);
                self.wanted = stored.wanted.map(Cow::into_owned);
            }
            None if what == "snapshot" => {
                let snapshot: SnapshotHeader = read(value)?;
                let progress = snapshot.progress;
                (self.checkpoint, self.began_after) = (progress.checkpoint, progress.began_after);
                for (stream, letter) in snapshot.letters {
                    self.note_letter(&stream, &letter)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn note_letter(&mut self, stream: &str, value: &[u8]) -> Result<(), String> {
        let stream: StreamId = stream.parse().map_err(|e| format!("{e}"))?;
        self.dead_letters.push(read::<StoredLetter>(value)?.open(&stream));
        Ok(())
    }
}

/// Stores an order to retry or discard the parked event of a stream. `consumer` is the name of the
/// whole consumer; the partition that has the event carries the order out.
///
/// If several processes may write the store, a running consumer carries out the order within about
/// a second. Otherwise the order waits for the consumer's next start. The result shows in the dead
/// letters. For a consumer that runs in this program, call
/// [`ConsumerHandle::retry`](crate::ConsumerHandle::retry).
///
/// # Errors
/// `Invalid` if no event of the stream is parked; errors of the store.
pub async fn order_release(
    kernel: &Kernel,
    consumer: &str,
    stream: &StreamId,
    release: Release,
) -> Result<(), StoreError> {
    let documents = kernel.documents();
    let all = stored_consumers(&**documents).await?;
    let has_it = |it: &DeadLetter| it.stream == *stream;
    let mut orders = Vec::new();
    // If the partition key is not the stream, several partitions may have parked it.
    for found in all.iter().filter(|it| it.is_of(consumer)) {
        let name = found.name.parse::<ConsumerName>();
        let name = name.map_err(|error| StoreError::invalid(error.to_string()))?;
        let letters = found.dead_letters.iter().filter(|it| has_it(it));
        orders.extend(letters.map(|letter| (name.clone(), StoredOrder::of(letter, release))));
    }
    if orders.is_empty() {
        return Err(StoreError::invalid(format!(
            "nothing of this stream is parked: consumer={consumer} stream={stream}"
        )));
    }
    store_orders(kernel, &orders).await
}

impl StoredOrder {
    /// The stream of the order, if the same event is still parked.
    pub fn parked_in(&self, letters: &BTreeMap<StreamId, StoredLetter>) -> Option<StreamId> {
        let stream = self.stream.parse::<StreamId>().ok()?;
        let letter = letters.get(&stream)?;
        (letter.version == self.version).then_some(stream)
    }

    pub(crate) fn of(letter: &DeadLetter, release: Release) -> Self {
        let stream = letter.stream.to_string();
        let version = letter.version.value();
        Self { stream, version, release }
    }
}

/// Stores orders for the processes that work on these partitions.
pub(crate) async fn store_orders(
    kernel: &Kernel,
    orders: &[(ConsumerName, StoredOrder)],
) -> Result<(), StoreError> {
    let mut batch = WriteBatch::new();
    for (consumer, order) in orders {
        let id = kernel.ids().uuid(kernel.clock().now());
        let key = format!("$consumer/{consumer}/order/{id}");
        batch = batch.put(key, ExpectedRevision::Any, progress::encode(order));
    }
    match kernel.documents().write(ring(batch)).await {
        Ok(_) => Ok(()),
        Err(WriteError::Store(error)) => Err(error),
        Err(other) => Err(StoreError::unavailable(other.to_string())),
    }
}

/// The stored orders for a consumer, with their keys. An order that can't be read is skipped and
/// stays in the store.
pub async fn left_orders(
    documents: &dyn DocumentStore,
    consumer: &ConsumerName,
) -> Result<Vec<(Bytes, StoredOrder)>, StoreError> {
    let mut found = Vec::new();
    let mut rest = Some(orders(consumer));
    while let Some(range) = rest {
        let page = documents.scan(ScanQuery::new(range)).await?;
        for document in page.documents {
            if let Ok(order) = progress::decode(&document.value) {
                found.push((document.key, order));
            }
        }
        rest = page.rest;
    }
    Ok(found)
}

/// The keys of the orders for a consumer.
fn orders(consumer: &ConsumerName) -> KeyRange {
    KeyRange::prefix(format!("$consumer/{consumer}/order/"))
}

/// Splits a key into the consumer's name and the name of its document.
fn parts(key: &Bytes) -> Option<(&str, &str)> {
    let key = std::str::from_utf8(key).ok()?;
    key.strip_prefix("$consumer/")?.split_once('/')
}

fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    progress::decode(bytes).map_err(|e| e.to_string())
}
