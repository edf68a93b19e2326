//! Snapshots of a model in memory: the model in pieces, and a header that names them.

use std::{
    any::type_name,
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use factum_consumer::{
    ConsumerName, StartFrom, TargetError,
    part::{
        NO_PIECES, SnapshotHeader, StoredLetter, Wanted, header_key,
        progress::{self, Mark, Progress},
        version_of, written,
    },
};
use factum_kernel::{
    __private::{digest_of, encode_read_back},
    Cbor, Codec, DocumentStore, ExpectedRevision, InvalidStreamId, Kernel, KeyRange, Position,
    ScanQuery, StreamId, WriteBatch,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::documents::documents_prefix;

/// The prefix of all stored keys of consumers.
const PREFIX: &str = "$consumer/";
/// The size of a snapshot's pieces, unless the store takes only smaller documents.
const PIECE_BYTES: usize = 256 << 10;
/// The number of pieces in one write, unless the store takes fewer.
const PIECES_AT_ONCE: usize = 8;
/// The longest time that writing a snapshot takes: older pieces without a header can be removed.
const SNAPSHOT_TIME: Duration = Duration::from_secs(3_600);

/// The snapshots of one model.
#[derive(Debug)]
pub(super) struct Snapshots {
    kernel: Kernel,
    model: ConsumerName,
    /// The events that the model wants, for other processes.
    wanted: Wanted,
    /// False if the model does not read back. Set at the first snapshot of a start.
    reads_back: OnceLock<bool>,
}

/// The content of a snapshot.
pub(super) struct Restored<M> {
    pub(super) progress: Progress,
    /// The model and its parked streams. Without them the model is made from where it began.
    pub(super) model: Option<(M, BTreeMap<StreamId, StoredLetter>)>,
}

impl Snapshots {
    pub(super) fn new(kernel: Kernel, model: ConsumerName, wanted: Wanted) -> Self {
        Self { kernel, model, wanted, reads_back: OnceLock::new() }
    }

    fn documents(&self) -> &Arc<dyn DocumentStore> {
        self.kernel.documents()
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), TargetError> {
        written(self.documents().write(batch).await).map(drop)
    }

    /// The mark of the last run.
    pub(super) async fn mark(&self) -> Result<Mark, TargetError> {
        let found = self.documents().get(&mark_key(&self.model)).await?;
        found.map_or_else(|| Ok(Mark::default()), |found| decode(&found.value))
    }

    pub(super) async fn put_mark(&self, mark: Mark) -> Result<(), TargetError> {
        let mark = progress::encode_mark(mark, &self.wanted);
        let any = ExpectedRevision::Any;
        self.write(WriteBatch::new().put(mark_key(&self.model), any, mark)).await
    }

    /// Reads the last snapshot. If its model can't be read, or is of another type or of one that
    /// has gained or lost a field since, only its progress is returned.
    pub(super) async fn restore<M: Serialize + DeserializeOwned>(
        &self,
    ) -> Result<Option<Restored<M>>, TargetError> {
        let key = header_key(&self.model);
        loop {
            let Some(found) = self.documents().get(&key).await? else { return Ok(None) };
            let header: SnapshotHeader = decode(&found.value)?;
            let progress = header.progress;
            if header.model_type != type_name::<M>() {
                return Ok(Some(Restored { progress, model: None }));
            }
            if let Some(bytes) = self.pieces(&header).await? {
                let letters = letters(header.letters)?;
                let is_same = |model: &M| digest_of(model).is_ok_and(|it| it == header.digest);
                let model = Cbor::decode(&bytes).ok().filter(is_same);
                let model = model.map(|model| (model, letters));
                return Ok(Some(Restored { progress, model }));
            }
            let again = self.documents().get(&key).await?;
            if again.is_some_and(|again| again.revision == found.revision) {
                return Ok(Some(Restored { progress, model: None }));
            }
            // Another process has replaced the snapshot meanwhile.
        }
    }

    async fn pieces(&self, header: &SnapshotHeader) -> Result<Option<Vec<u8>>, TargetError> {
        let mut bytes = Vec::new();
        let mut pieces = 0;
        let mut rest = Some(KeyRange::prefix(pieces_prefix(&self.model, &header.name)));
        while let Some(range) = rest {
            let page = self.documents().scan(ScanQuery::new(range)).await?;
            pieces += page.documents.len();
            page.documents.iter().for_each(|piece| bytes.extend_from_slice(&piece.value));
            rest = page.rest;
        }
        Ok((pieces == header.pieces).then_some(bytes))
    }

    /// Writes a snapshot: its pieces, then the header that names them. Of a model that does not
    /// read back, only the header is written.
    pub(super) async fn store<M: Serialize + DeserializeOwned>(
        &self,
        model: &M,
        progress: Progress,
        letters: &BTreeMap<StreamId, StoredLetter>,
    ) -> Result<(), TargetError> {
        let mut out = BytesMut::new();
        let digest = self.encode(model, &mut out)?;
        let now = self.kernel.clock().now();
        // The name is unique, so that pieces of two processes never mix.
        let name = format!("{:032x}", self.kernel.ids().uuid(now).as_u128());
        let limits = self.kernel.events().guarantees().limits;
        let piece_bytes = PIECE_BYTES.min(limits.document_bytes_max).max(1);
        let pieces_at_once = PIECES_AT_ONCE.min(limits.write_documents_max).max(1);
        let pieces: Vec<&[u8]> = out.chunks(piece_bytes).collect();
        for (at, some) in pieces.chunks(pieces_at_once).enumerate() {
            let mut batch = WriteBatch::new();
            for (offset, piece) in some.iter().enumerate() {
                let key = piece_key(&self.model, &name, at * pieces_at_once + offset);
                batch = batch.put(key, ExpectedRevision::Any, Bytes::copy_from_slice(piece));
            }
            self.write(batch).await?;
        }
        let letters = letters
            .iter()
            .map(|(stream, letter)| (stream.to_string(), progress::encode(letter).to_vec()));
        let letters = letters.collect();
        let model_type = Cow::Borrowed(type_name::<M>());
        let pieces = if digest.is_some() { pieces.len() } else { NO_PIECES };
        let digest = digest.unwrap_or_default();
        let header = SnapshotHeader { progress, letters, name, pieces, model_type, digest };
        let before = self.write_header(&header).await?;
        self.sweep(before, &header.name).await;
        Ok(())
    }

    /// Stores the end of the log as the beginning of a model, unless it or another version of it
    /// has begun before.
    pub(super) async fn begin_now<M>(&self, name: &ConsumerName) -> Result<(), TargetError> {
        if self.is_taken().await? || self.began(name).await?.is_some() {
            return Ok(());
        }
        let progress = Progress::beginning(&self.kernel, StartFrom::Now).await?;
        // Without pieces there is no model: it is made from where it began.
        let header = SnapshotHeader {
            progress,
            letters: Vec::new(),
            name: String::new(),
            pieces: NO_PIECES,
            model_type: Cow::Borrowed(type_name::<M>()),
            digest: 0,
        };
        let key = header_key(&self.model);
        let absent = ExpectedRevision::Absent;
        let batch = WriteBatch::new().put(key, absent, progress::encode(&header));
        match self.write(batch).await {
            // Another process has stored the beginning at the same time.
            Ok(()) | Err(TargetError::Fenced) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Encodes a model and returns its digest; `None` if the model does not read back. That is
    /// found at the first snapshot, and logged. A later model that does not read back is ignored
    /// by its digest when it is restored.
    fn encode<M: Serialize + DeserializeOwned>(
        &self,
        model: &M,
        out: &mut BytesMut,
    ) -> Result<Option<u64>, TargetError> {
        let broken = |error| TargetError::Broken(Arc::new(error));
        match self.reads_back.get() {
            Some(true) => {
                Cbor::encode(model, out).map_err(broken)?;
                return digest_of(model).map(Some).map_err(broken);
            }
            Some(false) => return Ok(None),
            None => {}
        }
        let encoded = encode_read_back(model, out);
        let _ = self.reads_back.set(encoded.is_ok());
        if let Err(error) = &encoded {
            out.clear();
            let consumer = &self.model;
            tracing::error!(%consumer, %error, "no snapshots of a model that does not read back");
        }
        Ok(encoded.ok())
    }

    /// Replaces the header, and returns the name of the snapshot before, whose pieces can be
    /// removed. An earlier write that arrives late finds another revision and does nothing.
    async fn write_header(&self, header: &SnapshotHeader) -> Result<Option<String>, TargetError> {
        let key = header_key(&self.model);
        loop {
            let found = self.documents().get(&key).await?;
            let expected = found
                .as_ref()
                .map_or(ExpectedRevision::Absent, |found| ExpectedRevision::Exact(found.revision));
            let batch = WriteBatch::new().put(key.clone(), expected, progress::encode(header));
            match self.write(batch).await {
                Ok(()) => {
                    let before = found.and_then(|found| progress::decode(&found.value).ok());
                    return Ok(before.map(|before: SnapshotHeader| before.name));
                }
                // Another process was first. Either snapshot will do, so the last one stays.
                Err(TargetError::Fenced) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes the snapshot before, and the pieces of snapshots that were never finished.
    async fn sweep(&self, before: Option<String>, now: &str) {
        let long_ago = self.kernel.clock().now().saturating_sub(SNAPSHOT_TIME);
        // Names begin with their time.
        let long_ago = format!("{:012x}", long_ago.as_millis());
        let prefix = documents_prefix(&self.model);
        let old = KeyRange::new(prefix.clone(), format!("{prefix}{}", now.min(&long_ago)));
        let before = before.map(|name| KeyRange::prefix(pieces_prefix(&self.model, &name)));
        for range in before.into_iter().chain([old]) {
            // Pieces that are left are removed after a later snapshot.
            let _ = self.documents().clear(range).await;
        }
    }

    /// The position after which another version of the model began: the first one, if there are
    /// several versions.
    pub(super) async fn began(&self, name: &ConsumerName) -> Result<Option<Position>, TargetError> {
        let mut began: Option<Position> = None;
        let mut rest = Some(KeyRange::prefix(format!("{PREFIX}{name}@")));
        while let Some(range) = rest {
            let page = self.documents().scan(ScanQuery::new(range)).await?;
            for document in page.documents {
                if of_header(&document.key).is_none() {
                    continue;
                }
                let header: SnapshotHeader = decode(&document.value)?;
                let after = header.progress.began_after;
                began = began.map_or(after, |began| Some(after.map_or(began, |it| it.min(began))));
            }
            rest = page.rest;
        }
        Ok(began)
    }

    /// Returns true if a projection into documents has this name.
    pub(super) async fn is_taken(&self) -> Result<bool, TargetError> {
        let progress = format!("{PREFIX}{}/progress", self.model);
        Ok(self.documents().get(progress.as_bytes()).await?.is_some())
    }

    /// Removes the snapshots of earlier versions. A program of such a version that is still
    /// running, or starts again, makes its model from the log.
    pub(super) async fn sweep_versions(
        &self,
        name: &ConsumerName,
        version: u32,
    ) -> Result<(), TargetError> {
        let mut rest = Some(KeyRange::prefix(format!("{PREFIX}{name}@")));
        while let Some(range) = rest {
            let page = self.documents().scan(ScanQuery::new(range)).await?;
            for document in &page.documents {
                // A projection into documents may have had the name before. It has no header.
                let Some(before) = of_header(&document.key) else { continue };
                let Some(found) = version_of(name.as_str(), before) else { continue };
                // Programs of earlier releases made builds of a model too: `name@1.1`.
                let is_build = before.rsplit('@').next().is_some_and(|it| it.contains('.'));
                if found < version || (found == version && is_build) {
                    self.remove(before).await?;
                }
            }
            rest = page.rest;
        }
        Ok(())
    }

    /// Removes the snapshot of another version. The header goes first: without it, the pieces have
    /// no effect.
    async fn remove(&self, model: &str) -> Result<(), TargetError> {
        let Ok(model) = model.parse::<ConsumerName>() else { return Ok(()) };
        let any = ExpectedRevision::Any;
        let header = WriteBatch::new().remove(header_key(&model), any);
        self.write(header.remove(mark_key(&model), any)).await?;
        self.documents().clear(KeyRange::prefix(documents_prefix(&model))).await?;
        Ok(())
    }
}

/// Decodes the parked streams of a snapshot.
fn letters(
    stored: Vec<(String, Vec<u8>)>,
) -> Result<BTreeMap<StreamId, StoredLetter>, TargetError> {
    let letter = |(stream, letter): (String, Vec<u8>)| {
        let stream = stream.parse();
        let stream = stream.map_err(|e: InvalidStreamId| TargetError::Broken(Arc::new(e)))?;
        Ok((stream, decode(&letter)?))
    };
    stored.into_iter().map(letter).collect()
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, TargetError> {
    progress::decode(bytes).map_err(|error| TargetError::Broken(Arc::new(error)))
}

/// The name of the model whose header has this key.
fn of_header(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?.strip_suffix("/snapshot")
}

fn mark_key(model: &ConsumerName) -> Bytes {
    format!("{PREFIX}{model}/mark").into()
}

fn pieces_prefix(model: &ConsumerName, snapshot: &str) -> String {
    format!("{}{snapshot}/", documents_prefix(model))
}

fn piece_key(model: &ConsumerName, snapshot: &str, piece: usize) -> Bytes {
    format!("{}{piece:08x}", pieces_prefix(model, snapshot)).into()
}
