//! Snapshots of a model in memory: pieces of it, and a header that names them.

use std::{any::type_name, borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use factum_core::{
    Cbor, Codec, DocumentStore, ExpectedRevision, InvalidStreamId, KeyRange, ScanQuery, StreamId,
    WriteBatch,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::InMemory;
use crate::{
    name::ConsumerName,
    progress::{self, Progress},
    target::{TargetError, checkpoints::written, documents},
};

/// A snapshot is kept in pieces of this size, unless its store takes only smaller documents.
const PIECE_BYTES: usize = 256 << 10;
/// So many pieces are written at once, unless its store takes only fewer.
const PIECES_AT_ONCE: usize = 8;
/// Nobody writes on one snapshot for so long: pieces that are older and belong to none can go.
const SNAPSHOT_TIME: Duration = Duration::from_secs(3_600);

/// What is stored of a snapshot beside its pieces.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) progress: Progress,
    pub(crate) letters: Vec<(String, Vec<u8>)>,
    /// Its pieces are under this name, which no other snapshot has.
    name: String,
    pieces: usize,
    /// The name of the model's Rust type: bytes of one type may decode as another. Empty in what
    /// older versions stored, which fits no type.
    #[serde(default)]
    model_type: Cow<'static, str>,
}

impl<M> InMemory<M>
where
    M: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// The last snapshot, and its model; one that can't be read, or is of another type, is as good
    /// as none, and the model is made from the log.
    pub(super) async fn restore(
        &self,
        of: &ConsumerName,
    ) -> Result<Option<(Snapshot, Option<M>)>, TargetError> {
        loop {
            let Some(found) = self.documents().get(&header_key(of)).await? else { return Ok(None) };
            let snapshot: Snapshot = progress::decode(&found.value)
                .map_err(|error| TargetError::Broken(Arc::new(error)))?;
            if snapshot.model_type != type_name::<M>() {
                return Ok(Some((snapshot, None)));
            }
            if let Some(bytes) = self.pieces(of, &snapshot).await? {
                return Ok(Some((snapshot, Cbor::decode(&bytes).ok())));
            }
            let again = self.documents().get(&header_key(of)).await?;
            if again.is_some_and(|again| again.revision == found.revision) {
                return Ok(Some((snapshot, None)));
            }
            // Another process has put one in its place meanwhile.
        }
    }

    async fn pieces(
        &self,
        consumer: &ConsumerName,
        snapshot: &Snapshot,
    ) -> Result<Option<Vec<u8>>, TargetError> {
        let mut bytes = Vec::new();
        let (mut pieces, mut rest) =
            (0, Some(KeyRange::prefix(pieces_prefix(consumer, &snapshot.name))));
        while let Some(range) = rest {
            let page = self.documents().scan(ScanQuery::new(range)).await?;
            pieces += page.documents.len();
            page.documents.iter().for_each(|piece| bytes.extend_from_slice(&piece.value));
            rest = page.rest;
        }
        Ok((pieces == snapshot.pieces).then_some(bytes))
    }

    /// Writes a snapshot: its pieces, then what names them.
    pub(super) async fn snapshot(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        let model = self.current.borrow().model.clone();
        let mut out = BytesMut::new();
        Cbor::encode(&model.read_owned().await.model, &mut out)
            .map_err(|error| TargetError::Broken(Arc::new(error)))?;
        let now = self.kernel.clock().now();
        // Of its own, so that pieces of two processes never make one model.
        let name = format!("{:032x}", self.kernel.ids().uuid(now).as_u128());
        let limits = self.kernel.events().guarantees().limits;
        let piece_bytes = PIECE_BYTES.min(limits.document_bytes_max).max(1);
        let pieces_at_once = PIECES_AT_ONCE.min(limits.write_documents_max).max(1);
        let pieces: Vec<&[u8]> = out.chunks(piece_bytes).collect();
        for (at, some) in pieces.chunks(pieces_at_once).enumerate() {
            let mut batch = WriteBatch::new();
            for (offset, piece) in some.iter().enumerate() {
                let key = piece_key(consumer, &name, at * pieces_at_once + offset);
                batch = batch.put(key, ExpectedRevision::Any, Bytes::copy_from_slice(piece));
            }
            self.write(batch).await?;
        }
        let snapshot = {
            let kept = self.kept();
            let letters = kept.letters.iter().map(|(stream, it)| (stream.to_string(), it.to_vec()));
            let (progress, pieces) = (kept.at.unwrap_or_default(), pieces.len());
            let model_type = Cow::Borrowed(type_name::<M>());
            Snapshot { progress, letters: letters.collect(), name, pieces, model_type }
        };
        let before = self.write_header(consumer, &snapshot).await?;
        {
            let mut kept = self.kept();
            (kept.events, kept.stored) = (0, Some(snapshot.progress.position()));
            kept.is_owed = false;
        }
        self.sweep(consumer, before, &snapshot.name).await;
        Ok(())
    }

    /// Puts a header in the place of another, and answers with whose pieces can go. An earlier
    /// write that comes late finds another revision, and does nothing.
    async fn write_header(
        &self,
        consumer: &ConsumerName,
        snapshot: &Snapshot,
    ) -> Result<Option<String>, TargetError> {
        loop {
            let found = self.documents().get(&header_key(consumer)).await?;
            let expected = found
                .as_ref()
                .map_or(ExpectedRevision::Absent, |found| ExpectedRevision::Exact(found.revision));
            let header = progress::encode(snapshot);
            match self.write(WriteBatch::new().put(header_key(consumer), expected, header)).await {
                Ok(()) => {
                    let before = found.and_then(|found| progress::decode(&found.value).ok());
                    return Ok(before.map(|before: Snapshot| before.name));
                }
                // Another process was first; the last one is as good as any.
                Err(TargetError::Fenced) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes the snapshot before, and what was left behind by those that were never finished.
    async fn sweep(&self, consumer: &ConsumerName, before: Option<String>, now: &str) {
        let long_ago = self.kernel.clock().now().saturating_sub(SNAPSHOT_TIME);
        // Names begin with their time.
        let long_ago = format!("{:012x}", long_ago.as_millis());
        let prefix = documents::prefix(consumer);
        let old = KeyRange::new(prefix.clone(), format!("{prefix}{}", now.min(&long_ago)));
        let before = before.map(|name| KeyRange::prefix(pieces_prefix(consumer, &name)));
        for range in before.into_iter().chain([old]) {
            // What stays is swept by a later one.
            let _ = self.documents().clear(range).await;
        }
    }
}

/// Lets a stopped consumer make its model anew, from its beginning. Whether there is one.
pub(crate) async fn forget(
    documents: &dyn DocumentStore,
    consumer: &ConsumerName,
) -> Result<bool, TargetError> {
    let Some(found) = documents.get(&header_key(consumer)).await? else { return Ok(false) };
    let before: Snapshot =
        progress::decode(&found.value).map_err(|error| TargetError::Broken(Arc::new(error)))?;
    let progress = Progress { checkpoint: None, ..before.progress };
    // As many pieces as nobody has.
    let snapshot = Snapshot { progress, letters: Vec::new(), pieces: usize::MAX, ..before };
    let header = progress::encode(&snapshot);
    let expected = ExpectedRevision::Exact(found.revision);
    let batch = WriteBatch::new().put(header_key(consumer), expected, header);
    written(documents.write(batch).await).map(|_| true)
}

/// Letters as they are kept.
pub(super) fn letters(
    stored: Vec<(String, Vec<u8>)>,
) -> Result<BTreeMap<StreamId, Bytes>, TargetError> {
    let parsed = stored.into_iter().map(|(stream, letter)| Ok((stream.parse()?, letter.into())));
    let parsed: Result<_, InvalidStreamId> = parsed.collect();
    parsed.map_err(|error| TargetError::Broken(Arc::new(error)))
}

fn header_key(consumer: &ConsumerName) -> Bytes {
    format!("$consumer/{consumer}/snapshot").into()
}

fn pieces_prefix(consumer: &ConsumerName, snapshot: &str) -> String {
    format!("{}{snapshot}/", documents::prefix(consumer))
}

fn piece_key(consumer: &ConsumerName, snapshot: &str, piece: usize) -> Bytes {
    format!("{}{piece:08x}", pieces_prefix(consumer, snapshot)).into()
}
