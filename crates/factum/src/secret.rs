//! The secret for hashed tags: the caller's or the store's own. It is the same at each opening.

use std::time::Duration;

use bytes::Bytes;
use factum_kernel::{
    Clock, DocumentStore, ExpectedRevision, IdSource, StoreError, StoreErrorKind, TagKey,
    WriteBatch, WriteError,
};

/// The document with the store's own key, for an application without a key.
const KEY: &[u8] = b"$factum/tag-key";
/// The document that identifies the key without revealing it.
const FINGERPRINT: &[u8] = b"$factum/tag-key-fingerprint";
/// The most attempts to write a key when the outcome is unknown.
const ATTEMPTS_MAX: u32 = 8;
/// The pause after an unknown outcome.
const PAUSE: Duration = Duration::from_millis(50);

/// The document store for keys, and the sources for making a new key.
pub(crate) struct Secrets<'a> {
    pub(crate) documents: &'a dyn DocumentStore,
    pub(crate) ids: &'a dyn IdSource,
    pub(crate) clock: &'a dyn Clock,
}

impl Secrets<'_> {
    /// The key for hashing: the caller's, or else the store's own. The store's own key is made at
    /// the first opening and is durable before anything uses it. `None` if the store has no key and
    /// can't be written, or if the store was used with a key that the caller has not given.
    pub(crate) async fn tag_key(&self, own: Option<TagKey>) -> Result<Option<TagKey>, StoreError> {
        let key = match own {
            Some(key) => Some(key),
            None => self.stored_key().await?,
        };
        if let Some(key) = &key {
            self.check(key).await?;
        }
        Ok(key)
    }

    async fn stored_key(&self) -> Result<Option<TagKey>, StoreError> {
        // The store was used with an application's key. Without that key hashed tags are refused,
        // so that no wrong hash is stored. Everything else works without a key.
        if self.documents.get(KEY).await?.is_none()
            && self.documents.get(FINGERPRINT).await?.is_some()
        {
            return Ok(None);
        }
        let made = new_secret(self.ids, self.clock);
        let Some(secret) = self.get_or_put(KEY, made.to_vec().into()).await? else {
            return Ok(None);
        };
        let secret = <[u8; 32]>::try_from(&secret[..]).map_err(|_| {
            StoreError::corrupt("the tag key is damaged, restore it: document=$factum/tag-key")
        })?;
        Ok(Some(TagKey::new(secret)))
    }

    /// Refuses another key: with it no stored hash would match, so uniqueness rules would accept
    /// taken values.
    async fn check(&self, key: &TagKey) -> Result<(), StoreError> {
        let tag = key.hashed("factum", "fingerprint").expect("a valid name");
        let ours = Bytes::copy_from_slice(tag.as_str().as_bytes());
        match self.get_or_put(FINGERPRINT, ours.clone()).await? {
            Some(theirs) if theirs != ours => Err(StoreError::invalid(
                "the store was used with another tag key, its hashed tags would match nothing: \
                 give the key that it was made with",
            )),
            _ => Ok(()),
        }
    }

    /// Returns the value of a document, and writes it if it is missing. `None` if it is missing and
    /// the store can't be written.
    async fn get_or_put(
        &self,
        key: &'static [u8],
        value: Bytes,
    ) -> Result<Option<Bytes>, StoreError> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(document) = self.documents.get(key).await? {
                return Ok(Some(document.value));
            }
            let batch = WriteBatch::new().put(key, ExpectedRevision::Absent, value.clone());
            match self.documents.write(batch).await {
                // Either this write or another process's came first. The next read tells which
                // value counts.
                Ok(_) | Err(WriteError::Conflict { .. }) => {}
                Err(WriteError::Store(error)) if error.kind() == StoreErrorKind::Invalid => {
                    return Ok(None);
                }
                Err(WriteError::Store(error)) => return Err(error),
                Err(_) => self.clock.sleep(PAUSE).await,
            }
        }
        Err(StoreError::unavailable("the outcome of writing the tag key is unknown, open again"))
    }
}

/// 32 random bytes. The time in a UUIDv7 is not random, so it is combined with the random half of
/// another one.
fn new_secret(ids: &dyn IdSource, clock: &dyn Clock) -> [u8; 32] {
    let mut secret = [0; 32];
    for half in secret.chunks_mut(16) {
        let one = ids.uuid(clock.now()).as_u128();
        let two = ids.uuid(clock.now()).as_u128();
        half.copy_from_slice(&(one ^ two.rotate_left(64)).to_be_bytes());
    }
    secret
}
