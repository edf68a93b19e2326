//! Snapshots: folded states kept as documents, so that a load need not fold every event. They are
//! caches: without them every outcome is the same.

mod policy;

use std::{
    any::type_name,
    borrow::Cow,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    codec::{Cbor, Codec, CodecError},
    document::{
        Document, DocumentStore, ExpectedRevision, KeyRange, Revision, ScanQuery, WriteBatch,
    },
    error::{StoreError, WriteError},
    id::EventId,
    position::{Lineage, Position},
    read_back::{ReadBackError, digest_of, encode_read_back},
    recorded::EventHeader,
    stream::StreamId,
    time::Timestamp,
    version::StreamVersion,
};

pub(crate) use policy::Since;
pub use policy::{InvalidSnapshotPolicy, SnapshotPolicy};

/// Counters of the snapshots of a repository and its clones.
#[derive(Debug, Default)]
pub struct SnapshotStats {
    taken: AtomicU64,
    used: AtomicU64,
    ignored: AtomicU64,
    failed: AtomicU64,
    unreadable: OnceLock<String>,
}

impl SnapshotStats {
    /// The number of snapshots that were written.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The number of loads that began with a snapshot.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The number of snapshots that were ignored: they don't decode, have another type or shape,
    /// such as a field less, or don't fit the log.
    pub fn ignored(&self) -> u64 {
        self.ignored.load(Ordering::Relaxed)
    }

    /// The number of snapshots that could not be written or looked up because the document store
    /// failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// The reason why no more snapshots are taken: a state does not read back as it was, so every
    /// snapshot of its type may be of no use. It names the field, and is logged once.
    pub fn unreadable(&self) -> Option<&str> {
        self.unreadable.get().map(String::as_str)
    }

    fn report_unreadable(&self, stream: &StreamId, error: &ReadBackError) {
        let text = format!("{error}: stream={stream}");
        if self.unreadable.set(text).is_ok() {
            tracing::error!(%stream, %error, "a state does not read back, so no more snapshots");
        }
    }

    pub(crate) fn count_used(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_ignored(&self) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
    }
}

/// The stored facts about a snapshot, without its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHeader {
    pub(crate) state_version: u32,
    /// The name of the state's Rust type, because bytes of one type may decode as another.
    /// Snapshots of older versions have no name and are ignored.
    state_type: Cow<'static, str>,
    pub(crate) lineage: Lineage,
    /// The version of the last folded event. Loading reads that event again and uses the snapshot
    /// only if the event is the same.
    pub(crate) version: StreamVersion,
    pub(crate) position: Position,
    pub(crate) event_id: EventId,
    pub(crate) recorded_at: Timestamp,
    pub(crate) taken_at: Timestamp,
    is_compressed: bool,
    /// The digest of the state. A state of a type that has gained or lost a field since has another
    /// one. Snapshots of older versions have none and are ignored.
    #[serde(default)]
    digest: u64,
}

impl SnapshotHeader {
    /// A snapshot after this event.
    pub(crate) fn new(lineage: Lineage, last: &EventHeader, taken_at: Timestamp) -> Self {
        Self {
            state_version: 1,
            state_type: Cow::Borrowed(""),
            lineage,
            version: last.version,
            position: last.position,
            event_id: last.id,
            recorded_at: last.recorded_at,
            taken_at,
            is_compressed: false,
            digest: 0,
        }
    }
}

/// The snapshots of one kind of aggregate. Only this type has the serde bounds: function pointers
/// keep them out of every type above it.
pub(crate) struct Snapshots<A> {
    policy: SnapshotPolicy,
    documents: Arc<dyn DocumentStore>,
    stats: Arc<SnapshotStats>,
    /// Encodes a state that reads back, and returns its digest.
    save: fn(&A, &mut BytesMut) -> Result<u64, ReadBackError>,
    restore: fn(&[u8]) -> Result<A, CodecError>,
    digest: fn(&A) -> Result<u64, CodecError>,
}

impl<A> Clone for Snapshots<A> {
    fn clone(&self) -> Self {
        let documents = self.documents.clone();
        let stats = self.stats.clone();
        let Self { policy, save, restore, digest, .. } = *self;
        Self { policy, documents, stats, save, restore, digest }
    }
}

impl<A> fmt::Debug for Snapshots<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl<A: Serialize + DeserializeOwned> Snapshots<A> {
    pub(crate) fn new(policy: SnapshotPolicy, documents: Arc<dyn DocumentStore>) -> Self {
        let save = encode_read_back::<A> as fn(&_, &mut _) -> _;
        let restore = Cbor::decode::<A> as _;
        let digest = digest_of::<A> as fn(&_) -> _;
        Self { policy, documents, stats: Arc::default(), save, restore, digest }
    }
}

impl<A> Snapshots<A> {
    pub(crate) fn policy(&self) -> &SnapshotPolicy {
        &self.policy
    }

    pub(crate) fn stats(&self) -> &Arc<SnapshotStats> {
        &self.stats
    }

    /// A walk over the snapshots of a stream, the newest first.
    pub(crate) fn newest_first<'s>(&'s self, stream: &StreamId) -> Walk<'s, A> {
        Walk { snapshots: self, rest: Some(KeyRange::prefix(prefix(stream))) }
    }

    /// Removes a snapshot that doesn't fit the log, unless it was replaced since.
    pub(crate) async fn discard(&self, found: &Found<A>) {
        self.stats.count_ignored();
        let expected = ExpectedRevision::Exact(found.revision);
        let batch = WriteBatch::new().remove(found.key.clone(), expected);
        // If the removal fails, later loads skip the snapshot again.
        let _ = self.documents.write(batch).await;
    }

    /// Removes every snapshot of a stream.
    pub(crate) async fn clear(&self, stream: &StreamId) -> Result<(), StoreError> {
        self.documents.clear(KeyRange::prefix(prefix(stream))).await
    }

    /// Writes a snapshot and removes those beyond the number to keep. Snapshots are caches, so a
    /// failure is counted and is no error. A state that does not read back is reported, and no more
    /// snapshots of its type are taken.
    pub(crate) async fn save(&self, stream: &StreamId, header: SnapshotHeader, state: &A) {
        if self.stats.unreadable().is_some() {
            return;
        }
        let version = header.version;
        let value = match self.encode(header, state) {
            Ok(value) => value,
            Err(error) => return self.stats.report_unreadable(stream, &error),
        };
        let counter = match self.write(stream, version, value).await {
            Ok(()) => &self.stats.taken,
            Err(_) => &self.stats.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    async fn write(
        &self,
        stream: &StreamId,
        version: StreamVersion,
        value: Bytes,
    ) -> Result<(), WriteError> {
        let key = key(stream, version);
        let batch = WriteBatch::new().put(key.clone(), ExpectedRevision::Any, value);
        self.documents.write(batch).await?;
        let mut cut = Some(key);
        for _ in 1..self.policy.kept {
            let Some(to) = cut else { return Ok(()) };
            let older = KeyRange { from: prefix(stream), to: Some(to) };
            let query = ScanQuery::new(older).backward().with_documents_max(1);
            cut = self.documents.scan(query).await?.documents.pop().map(|document| document.key);
        }
        let Some(to) = cut else { return Ok(()) };
        Ok(self.documents.clear(KeyRange { from: prefix(stream), to: Some(to) }).await?)
    }

    /// Encodes a `u32` little-endian length, the header in CBOR, and the state in CBOR or LZ4 of
    /// it.
    fn encode(&self, mut header: SnapshotHeader, state: &A) -> Result<Bytes, ReadBackError> {
        let mut body = BytesMut::new();
        header.digest = (self.save)(state, &mut body)?;
        header.state_version = self.policy.state_version;
        header.state_type = type_name::<A>().into();
        header.is_compressed = body.len() > self.policy.compress_above_bytes;
        let body = if header.is_compressed {
            lz4_flex::compress_prepend_size(&body).into()
        } else {
            body.freeze()
        };
        let mut head = BytesMut::new();
        Cbor::encode(&header, &mut head).map_err(ReadBackError::Encode)?;
        let mut out = BytesMut::with_capacity(4 + head.len() + body.len());
        out.put_u32_le(head.len() as u32);
        out.put_slice(&head);
        out.put_slice(&body);
        Ok(out.freeze())
    }

    fn decode(&self, value: &[u8]) -> Result<(SnapshotHeader, A), CodecError> {
        let short = || CodecError::new("the snapshot is cut short");
        let (len, rest) = value.split_first_chunk().ok_or_else(short)?;
        let len = u32::from_le_bytes(*len) as usize;
        let (head, body) = rest.split_at_checked(len).ok_or_else(short)?;
        let header: SnapshotHeader = Cbor::decode(head)?;
        if header.state_version != self.policy.state_version
            || header.state_type != type_name::<A>()
        {
            return Err(CodecError::new("the state has another type or shape now"));
        }
        let state = if header.is_compressed {
            let body = lz4_flex::decompress_size_prepended(body).map_err(CodecError::new)?;
            (self.restore)(&body)?
        } else {
            (self.restore)(body)?
        };
        if (self.digest)(&state)? != header.digest {
            return Err(CodecError::new("the state has gained, lost or changed a field since"));
        }
        Ok((header, state))
    }
}

/// A snapshot that was found, with its key and revision.
pub(crate) struct Found<A> {
    pub(crate) header: SnapshotHeader,
    pub(crate) state: A,
    key: Bytes,
    revision: Revision,
}

/// A walk over the snapshots of a stream.
pub(crate) struct Walk<'s, A> {
    snapshots: &'s Snapshots<A>,
    rest: Option<KeyRange>,
}

impl<A> Walk<'_, A> {
    /// Returns the next snapshot that `is_wanted`. A snapshot that doesn't decode is counted and
    /// skipped. If the document store fails, there is no further snapshot.
    pub(crate) async fn next(
        &mut self,
        is_wanted: impl Fn(&SnapshotHeader) -> bool + Send,
    ) -> Option<Found<A>> {
        let stats = &self.snapshots.stats;
        while let Some(rest) = self.rest.take() {
            let query = ScanQuery::new(rest).backward().with_documents_max(1);
            let Ok(page) = self.snapshots.documents.scan(query).await else {
                stats.count_failed();
                return None;
            };
            self.rest = page.rest;
            let Document { key, revision, value } = page.documents.into_iter().next()?;
            match self.snapshots.decode(&value) {
                Ok((header, state)) if is_wanted(&header) => {
                    return Some(Found { header, state, key, revision });
                }
                Ok(_) => {}
                Err(_) => stats.count_ignored(),
            }
        }
        None
    }
}

/// The prefix of a stream's keys. It ends with a zero byte, which no stream id holds, so no other
/// stream's keys begin with it.
fn prefix(stream: &StreamId) -> Bytes {
    format!("$snapshot/{stream}\0").into()
}

fn key(stream: &StreamId, version: StreamVersion) -> Bytes {
    [&prefix(stream)[..], &version.value().to_be_bytes()].concat().into()
}
