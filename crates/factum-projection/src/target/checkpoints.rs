//! Progress alone, as documents: for consumers whose effects are elsewhere.

use std::sync::Arc;

use bytes::Bytes;
use factum_core::{
    DocumentStore, DocumentWrite, ExpectedRevision, KeyRange, Revision, ScanQuery, StreamId,
    WriteBatch, WriteError,
};

use super::{Fence, Opened, Save, Target, TargetError};
use crate::name::ConsumerName;

/// Keeps progress as documents. The fence is the revision of the progress.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoints {
    documents: Arc<dyn DocumentStore>,
}

impl Checkpoints {
    pub(crate) fn new(documents: Arc<dyn DocumentStore>) -> Self {
        Self { documents }
    }

    /// Writes a save, and what else belongs to it.
    pub(crate) async fn write(
        &self,
        consumer: &ConsumerName,
        effects: Vec<DocumentWrite>,
        save: Save,
    ) -> Result<Fence, TargetError> {
        let expected = match save.expected {
            Fence(0) => ExpectedRevision::Absent,
            Fence(revision) => ExpectedRevision::Exact(Revision::new(revision)),
        };
        let mut batch = WriteBatch::new().put(key(consumer, "progress"), expected, save.progress);
        if let Some(mark) = save.mark {
            batch = batch.put(key(consumer, "mark"), ExpectedRevision::Any, mark);
        }
        for (stream, letter) in save.letters {
            let (key, any) = (letter_key(consumer, &stream), ExpectedRevision::Any);
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
        match self.documents.write(batch).await {
            Ok(revision) => Ok(Fence(revision.value())),
            Err(WriteError::Conflict { .. }) => Err(TargetError::Fenced),
            Err(WriteError::Indeterminate(error)) => Err(TargetError::Unknown(Arc::new(error))),
            Err(WriteError::Store(error)) => Err(error.into()),
            Err(other) => Err(TargetError::Unknown(Arc::new(other))),
        }
    }
}

impl Target for Checkpoints {
    type Tx = ();

    async fn open(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        let mut opened = Opened::default();
        let letters = key(consumer, "letter/");
        let mut rest = Some(KeyRange::prefix(prefix(consumer)));
        while let Some(range) = rest {
            let page = self.documents.scan(ScanQuery::new(range)).await?;
            for document in page.documents {
                if let Some(stream) = document.key.strip_prefix(&letters[..]) {
                    let stream = String::from_utf8_lossy(stream).parse::<StreamId>();
                    let stream = stream.map_err(|e| TargetError::Refused(Arc::new(e)))?;
                    opened.letters.push((stream, document.value));
                } else if document.key == key(consumer, "mark") {
                    opened.mark = Some(document.value);
                } else if document.key == key(consumer, "progress") {
                    opened.fence = Fence(document.revision.value());
                    opened.progress = Some(document.value);
                }
            }
            rest = page.rest;
        }
        Ok(opened)
    }

    async fn begin(&self, _: &ConsumerName) -> Result<(), TargetError> {
        Ok(())
    }

    async fn commit(&self, of: &ConsumerName, (): (), save: Save) -> Result<Fence, TargetError> {
        self.write(of, Vec::new(), save).await
    }

    async fn clear(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        Ok(self.documents.clear(KeyRange::prefix(prefix(consumer))).await?)
    }
}

fn prefix(consumer: &ConsumerName) -> String {
    format!("$consumer/{consumer}/")
}

fn key(consumer: &ConsumerName, what: &str) -> Bytes {
    format!("$consumer/{consumer}/{what}").into()
}

fn letter_key(consumer: &ConsumerName, stream: &StreamId) -> Bytes {
    key(consumer, &format!("letter/{stream}"))
}
