//! Progress alone, as documents: for consumers whose effects are elsewhere.

use std::sync::Arc;

use bytes::Bytes;
use factum_kernel::{
    Document, DocumentStore, DocumentWrite, ExpectedRevision, KeyRange, Revision, ScanQuery,
    StoreError, StreamId, WriteBatch, WriteError,
};

use super::{Fence, Opened, Save, Target, TargetError};
use crate::name::ConsumerName;

/// What all that is kept of consumers begins with.
const PREFIX: &str = "$consumer/";

/// Stands in the place of a progress while all that belongs to it is being removed. What a
/// consumer stores is CBOR and never begins so.
const CLEARING: &[u8] = b"\xffclearing";

/// Keeps progress as documents. The fence is the revision of the progress.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    documents: Arc<dyn DocumentStore>,
}

impl Checkpoints {
    /// Progress in these documents.
    pub fn new(documents: Arc<dyn DocumentStore>) -> Self {
        Self { documents }
    }

    /// Writes a save, and what else belongs to it.
    pub async fn write(
        &self,
        consumer: &ConsumerName,
        effects: Vec<DocumentWrite>,
        save: Save,
    ) -> Result<Fence, TargetError> {
        let expected = match save.expected {
            Fence(0) => ExpectedRevision::Absent,
            Fence(revision) => ExpectedRevision::Exact(Revision::new(revision)),
        };
        let mut batch =
            WriteBatch::new().put(checkpoint_key(consumer, "progress"), expected, save.progress);
        if let Some(mark) = save.mark {
            batch = batch.put(checkpoint_key(consumer, "mark"), ExpectedRevision::Any, mark);
        }
        for (stream, letter) in save.letters {
            let key = letter_key(consumer, &stream);
            let any = ExpectedRevision::Any;
            batch = match letter {
                Some(letter) => batch.put(key, any, letter),
                None => batch.remove(key, any),
            };
        }
        for DocumentWrite { key, expected, value } in effects {
            batch = match value {
                Some(value) => batch.put(key, expected, value),
                None => batch.remove(key, expected),
            };
        }
        Ok(Fence(written(self.documents.write(batch).await)?.value()))
    }

    /// What is kept; a removal that was cut off is finished first.
    pub async fn open_with(
        &self,
        consumer: &ConsumerName,
        effects: Option<KeyRange>,
    ) -> Result<Opened, TargetError> {
        let opened = self.look_at(consumer).await?;
        if opened.progress.as_deref() != Some(CLEARING) {
            return Ok(opened);
        }
        self.clear_from(consumer, effects, Some(opened.fence)).await?;
        Ok(Opened::default())
    }

    /// Removes all of a consumer, with its partitions, and these effects. Cut off anywhere, it is
    /// finished by the next that opens: effects without progress would be had twice, and a progress
    /// without its letters would pass what is parked.
    pub async fn clear_with(
        &self,
        consumer: &ConsumerName,
        effects: Option<KeyRange>,
    ) -> Result<(), TargetError> {
        self.clear_from(consumer, effects, None).await
    }

    /// Where a fence is given, only from there: somebody else may have finished it, and begun anew.
    async fn clear_from(
        &self,
        consumer: &ConsumerName,
        effects: Option<KeyRange>,
        fence: Option<Fence>,
    ) -> Result<(), TargetError> {
        let whole = consumer.whole();
        let mut names = self.partitions(&whole).await?;
        names.push(whole.clone());
        // The fence moves: whoever is at work on it stores nothing any more.
        let any = ExpectedRevision::Any;
        let mut begins = WriteBatch::new();
        let mut ends = WriteBatch::new().remove(layout_key(&whole), any);
        for name in &names {
            let expected = match fence {
                Some(Fence(fence)) if name == consumer => {
                    ExpectedRevision::Exact(Revision::new(fence))
                }
                _ => any,
            };
            begins = begins.put(checkpoint_key(name, "progress"), expected, CLEARING);
            ends = ends
                .remove(checkpoint_key(name, "mark"), any)
                .remove(checkpoint_key(name, "progress"), any);
        }
        // Whichever was moved by somebody else.
        self.documents.write(begins).await.map_err(|error| match error {
            WriteError::Conflict { .. } => TargetError::Fenced,
            error => written(Err(error)).expect_err("it is an error"),
        })?;
        if let Some(effects) = effects {
            self.documents.clear(effects).await?;
        }
        for name in &names {
            self.documents.clear(KeyRange::prefix(checkpoint_key(name, "letter/"))).await?;
        }
        written(self.documents.write(ends).await).map(drop)
    }

    /// The partitions of a consumer of which anything is stored.
    pub async fn partitions(&self, whole: &ConsumerName) -> Result<Vec<ConsumerName>, StoreError> {
        let mut found: Vec<ConsumerName> = Vec::new();
        let mut rest = Some(KeyRange::prefix(format!("{PREFIX}{whole}#")));
        while let Some(range) = rest {
            let page = self.documents.scan(ScanQuery::new(range)).await?;
            let name = |key: &[u8]| {
                let key = std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?;
                key.split_once('/')?.0.parse().ok()
            };
            found.extend(page.documents.iter().filter_map(|it| name(&it.key)));
            found.dedup();
            rest = page.rest;
        }
        Ok(found)
    }

    /// The letters and the progress that they belong to.
    async fn look_at(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        loop {
            let before = self.documents.get(&checkpoint_key(consumer, "progress")).await?;
            let opened = self.scan(consumer).await?;
            // Somebody who still works on it may have stored between two pages of the letters.
            if opened.fence == before.as_ref().map_or(Fence(0), fence) {
                return Ok(opened);
            }
        }
    }

    async fn scan(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        let mut opened = Opened::default();
        let letters = checkpoint_key(consumer, "letter/");
        let mut rest = Some(KeyRange::prefix(prefix(consumer)));
        while let Some(range) = rest {
            let page = self.documents.scan(ScanQuery::new(range)).await?;
            for document in page.documents {
                if let Some(stream) = document.key.strip_prefix(&letters[..]) {
                    let stream = String::from_utf8_lossy(stream).parse::<StreamId>();
                    let stream = stream.map_err(|e| TargetError::Broken(Arc::new(e)))?;
                    opened.letters.push((stream, document.value));
                } else if document.key == checkpoint_key(consumer, "mark") {
                    opened.mark = Some(document.value);
                } else if document.key == checkpoint_key(consumer, "progress") {
                    opened.fence = fence(&document);
                    opened.progress = Some(document.value);
                }
            }
            rest = page.rest;
        }
        Ok(opened)
    }
}

impl Target for Checkpoints {
    type Tx = ();

    const IS_PARALLEL: bool = true;

    async fn open(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        self.open_with(consumer, None).await
    }

    async fn look(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        let opened = self.look_at(consumer).await?;
        let is_there = opened.progress.as_deref() != Some(CLEARING);
        Ok(if is_there { opened } else { Opened::default() })
    }

    async fn begin(&self, _: &ConsumerName) -> Result<(), TargetError> {
        Ok(())
    }

    async fn commit(&self, of: &ConsumerName, (): (), save: Save) -> Result<Fence, TargetError> {
        self.write(of, Vec::new(), save).await
    }

    async fn clear(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        self.clear_with(consumer, None).await
    }
}

/// What became of a write, as targets say it.
pub fn written(outcome: Result<Revision, WriteError>) -> Result<Revision, TargetError> {
    outcome.map_err(|error| match error {
        // The progress is the first entry; what is expected of others, it was read to be.
        WriteError::Conflict { entry: 0 } => TargetError::Fenced,
        WriteError::Conflict { .. } => TargetError::Overtaken,
        WriteError::Store(error) => error.into(),
        WriteError::Indeterminate(error) => TargetError::Unknown(Arc::new(error)),
        other => TargetError::Unknown(Arc::new(other)),
    })
}

fn fence(progress: &Document) -> Fence {
    Fence(progress.revision.value())
}

fn prefix(consumer: &ConsumerName) -> String {
    format!("{PREFIX}{consumer}/")
}

/// Where something of a consumer is kept.
pub fn checkpoint_key(consumer: &ConsumerName, what: &str) -> Bytes {
    format!("{PREFIX}{consumer}/{what}").into()
}

/// Where it is kept how many partitions a consumer was first started with.
pub(crate) fn layout_key(whole: &ConsumerName) -> Bytes {
    format!("$partitions/{whole}").into()
}

fn letter_key(consumer: &ConsumerName, stream: &StreamId) -> Bytes {
    checkpoint_key(consumer, &format!("letter/{stream}"))
}
