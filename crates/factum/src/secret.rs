//! The secret behind hashed tags that an application gets when it brings none.

use factum_core::{
    DocumentStore, ExpectedRevision, IdSource, StoreError, StoreErrorKind, TagKey, Timestamp,
    WriteBatch, WriteError,
};

const KEY: &[u8] = b"$factum/tag-key";

/// The store's own tag key; made at the first opening, durable before anything uses it. `None`
/// in a store that has none yet and was opened for reading.
pub(crate) async fn tag_key(
    documents: &dyn DocumentStore,
    ids: &dyn IdSource,
    now: Timestamp,
) -> Result<Option<TagKey>, StoreError> {
    loop {
        if let Some(document) = documents.get(KEY).await? {
            let secret = <[u8; 32]>::try_from(&document.value[..]).map_err(|_| {
                StoreError::corrupt("the tag key is damaged, restore it: document=$factum/tag-key")
            })?;
            return Ok(Some(TagKey::new(secret)));
        }
        let batch =
            WriteBatch::new().put(KEY, ExpectedRevision::Absent, new_secret(ids, now).to_vec());
        match documents.write(batch).await {
            // Written, or somebody else was first, or nobody knows: what is there now counts.
            Ok(_) | Err(WriteError::Conflict { .. } | WriteError::Indeterminate(_)) => {}
            Err(WriteError::Store(error)) if error.kind() == StoreErrorKind::Invalid => {
                return Ok(None);
            }
            Err(WriteError::Store(error)) => return Err(error),
            Err(other) => return Err(StoreError::internal(other.to_string())),
        }
    }
}

/// 32 random bytes: the random half of each UUIDv7 is laid over the time in another.
fn new_secret(ids: &dyn IdSource, now: Timestamp) -> [u8; 32] {
    let mut secret = [0; 32];
    for half in secret.chunks_mut(16) {
        let (one, two) = (ids.uuid(now).as_u128(), ids.uuid(now).as_u128());
        half.copy_from_slice(&(one ^ two.rotate_left(64)).to_be_bytes());
    }
    secret
}
