//! How far a consumer has come whose effects are stored only now and then: progress and dead
//! letters in one document, the header of a snapshot. What the snapshot holds besides is the
//! matter of whoever takes it.

use std::borrow::Cow;

use bytes::Bytes;
use factum_kernel::{DocumentStore, ExpectedRevision, WriteBatch};
use serde::{Deserialize, Serialize};

use crate::{
    name::ConsumerName,
    progress::{self, Progress},
    target::{TargetError, unreadable, written},
};

/// What is stored of a snapshot beside its pieces.
#[derive(Debug, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// How far the snapshot goes.
    pub progress: Progress,
    /// What is parked, by stream.
    pub letters: Vec<(String, Vec<u8>)>,
    /// Its pieces are under this name, which no other snapshot has.
    pub name: String,
    /// The number of its pieces.
    pub pieces: usize,
    /// The name of the type that the pieces hold: bytes of one type may decode as another. Empty
    /// in what older versions stored, which fits no type.
    #[serde(default)]
    pub model_type: Cow<'static, str>,
}

/// Where the header of a consumer's snapshot is.
pub fn header_key(consumer: &ConsumerName) -> Bytes {
    format!("$consumer/{consumer}/snapshot").into()
}

/// Makes a stopped consumer's snapshot hold nothing but where the consumer began: it is begun
/// anew from there. Whether there is a snapshot.
pub(crate) async fn empty_snapshot(
    documents: &dyn DocumentStore,
    consumer: &ConsumerName,
) -> Result<bool, TargetError> {
    let key = header_key(consumer);
    let Some(found) = documents.get(&key).await? else { return Ok(false) };
    let before: SnapshotHeader = progress::decode(&found.value).map_err(unreadable)?;
    let progress = Progress { checkpoint: None, ..before.progress };
    // No snapshot has this many pieces.
    let header = SnapshotHeader { progress, letters: Vec::new(), pieces: usize::MAX, ..before };
    let expected = ExpectedRevision::Exact(found.revision);
    let batch = WriteBatch::new().put(key, expected, progress::encode(&header));
    written(documents.write(batch).await).map(|_| true)
}
