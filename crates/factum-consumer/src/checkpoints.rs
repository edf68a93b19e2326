//! The target that stores only progress, as documents, for consumers with effects elsewhere.

use std::sync::Arc;

use bytes::Bytes;
use factum_kernel::{
    Document, DocumentStore, DocumentWrite, ExpectedRevision, Kernel, KeyRange, Revision,
    ScanQuery, StoreError, StreamId, WriteBatch, WriteError,
};

use crate::{
    name::ConsumerName,
    progress,
    target::{Fence, Opened, Save, Target, TargetError, unreadable},
};

/// The prefix of the keys of all consumers' documents.
const PREFIX: &str = "$consumer/";

/// The value in place of a progress while a consumer's documents are being removed. A stored
/// progress is CBOR and never begins with these bytes.
const CLEARING: &[u8] = b"\xffclearing";

/// A target that stores progress as documents. The fence is the revision of the progress.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    documents: Arc<dyn DocumentStore>,
}

impl Checkpoints {
    /// A target in these documents.
    pub fn new(documents: Arc<dyn DocumentStore>) -> Self {
        Self { documents }
    }

    /// Writes a save together with the effects that belong to it.
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
        let revision = written(self.documents.write(batch).await)?;
        Ok(save.expected.moved_to(Fence(revision.value())))
    }

    /// Reads the stored progress. A removal that was interrupted is completed first.
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

    /// Removes a consumer's documents, those of its partitions, and the effects. If the removal is
    /// interrupted, the next `open` completes it: otherwise effects without progress would take
    /// effect twice, and progress without dead letters would skip the parked events.
    pub async fn clear_with(
        &self,
        consumer: &ConsumerName,
        effects: Option<KeyRange>,
    ) -> Result<(), TargetError> {
        self.clear_from(consumer, effects, None).await
    }

    /// With a fence, removes only if the consumer still has that fence: another process may have
    /// completed the removal and started the consumer again.
    async fn clear_from(
        &self,
        consumer: &ConsumerName,
        effects: Option<KeyRange>,
        fence: Option<Fence>,
    ) -> Result<(), TargetError> {
        let whole = consumer.whole();
        let mut names = self.partitions(&whole).await?;
        names.push(whole.clone());
        // Change the fences first, so that a worker that still runs can't store any more.
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
        // A conflict means that another process has changed a fence.
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

    /// The partitions of a consumer that have stored documents.
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

    /// Reads the dead letters with the progress that they belong to.
    async fn look_at(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        loop {
            let before = self.documents.get(&checkpoint_key(consumer, "progress")).await?;
            let opened = self.scan(consumer).await?;
            // A process that still works on the consumer may have stored between two pages of
            // letters.
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
    const HAS_EFFECTS_ELSEWHERE: bool = true;

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

/// The outcome of a write, as the error of a target.
pub fn written(outcome: Result<Revision, WriteError>) -> Result<Revision, TargetError> {
    outcome.map_err(|error| match error {
        // The progress is the first entry. The other entries expect the revisions that the batch
        // read.
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

/// The key of one of a consumer's documents.
pub fn checkpoint_key(consumer: &ConsumerName, what: &str) -> Bytes {
    format!("{PREFIX}{consumer}/{what}").into()
}

/// The key of the number of partitions with which a consumer was first started.
pub(crate) fn layout_key(whole: &ConsumerName) -> Bytes {
    format!("$partitions/{whole}").into()
}

/// The number of partitions with which a consumer was first started, if it is stored.
pub(crate) async fn stored_layout(
    kernel: &Kernel,
    whole: &ConsumerName,
) -> Result<Option<usize>, TargetError> {
    let found = kernel.documents().get(&layout_key(whole)).await?;
    found.map(|found| progress::decode(&found.value).map_err(unreadable)).transpose()
}

fn letter_key(consumer: &ConsumerName, stream: &StreamId) -> Bytes {
    checkpoint_key(consumer, &format!("letter/{stream}"))
}
