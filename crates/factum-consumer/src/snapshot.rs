//! The stored progress of a consumer that stores its effects only now and then: progress and dead
//! letters in one document, the header of a snapshot. The loop that takes the snapshot stores the
//! pieces.

use std::borrow::Cow;

use bytes::Bytes;
use factum_kernel::{DocumentStore, ExpectedRevision, WriteBatch};
use serde::{Deserialize, Serialize};

use crate::{
    checkpoints::written,
    name::ConsumerName,
    progress::{self, Progress},
    target::{TargetError, unreadable},
};

/// The number of pieces in a header without a model: no snapshot has this many.
pub const NO_PIECES: usize = usize::MAX;

/// The header of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// The progress at the snapshot.
    pub progress: Progress,
    /// The dead letters, by stream.
    pub letters: Vec<(String, Vec<u8>)>,
    /// The name under which the pieces are stored; no other snapshot has it.
    pub name: String,
    /// The number of pieces.
    pub pieces: usize,
    /// The name of the type in the pieces, because bytes of one type may decode as another. Empty
    /// in headers of older versions, which match no type.
    #[serde(default)]
    pub model_type: Cow<'static, str>,
    /// The digest of the model. A model of a type that has gained or lost a field since has another
    /// one. 0 in headers of older versions.
    #[serde(default)]
    pub digest: u64,
}

/// The key of the header of a consumer's snapshot.
pub fn header_key(consumer: &ConsumerName) -> Bytes {
    format!("$consumer/{consumer}/snapshot").into()
}

/// Empties the snapshot of a stopped consumer, except for the position at which the consumer began:
/// the next start begins there. False if there is no snapshot.
pub(crate) async fn empty_snapshot(
    documents: &dyn DocumentStore,
    consumer: &ConsumerName,
) -> Result<bool, TargetError> {
    let key = header_key(consumer);
    let Some(found) = documents.get(&key).await? else { return Ok(false) };
    let before: SnapshotHeader = progress::decode(&found.value).map_err(unreadable)?;
    let progress = Progress { checkpoint: None, ..before.progress };
    let header = SnapshotHeader { progress, letters: Vec::new(), pieces: NO_PIECES, ..before };
    let expected = ExpectedRevision::Exact(found.revision);
    let batch = WriteBatch::new().put(key, expected, progress::encode(&header));
    written(documents.write(batch).await).map(|_| true)
}
