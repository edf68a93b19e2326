//! The secret behind hashed tags: the caller's or the store's own, and always the same one.

use std::time::Duration;

use bytes::Bytes;
use factum_kernel::{
    Clock, DocumentStore, ExpectedRevision, IdSource, StoreError, StoreErrorKind, TagKey,
    WriteBatch, WriteError,
};

/// The store's own key, if the application has brought none.
const KEY: &[u8] = b"$factum/tag-key";
/// What tells one key from another without giving it away.
const FINGERPRINT: &[u8] = b"$factum/tag-key-fingerprint";
/// How often an unknown outcome is looked into.
const ATTEMPTS_MAX: u32 = 8;
/// How long to wait before that.
const PAUSE: Duration = Duration::from_millis(50);

/// Where keys are kept, and what it takes to make one.
pub(crate) struct Secrets<'a> {
    pub(crate) documents: &'a dyn DocumentStore,
    pub(crate) ids: &'a dyn IdSource,
    pub(crate) clock: &'a dyn Clock,
}

impl Secrets<'_> {
    /// The key to hash with: the caller's, else the store's own, made at the first opening and
    /// durable before anything uses it. `None` in a store that has none and can't be written, or
    /// that was used with a key which the caller has not given.
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
        // The store was used with a key of the application's. Without it hashed tags are refused,
        // which is what keeps them right; the rest needs no key.
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

    /// With another key every hashed value would be free again, and nobody would notice.
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

    /// What is under a key, or becomes it; `None` where nothing is and nothing can be written.
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
                // Written, or somebody else was first: what is there now counts.
                Ok(_) | Err(WriteError::Conflict { .. }) => {}
                Err(WriteError::Store(error)) if error.kind() == StoreErrorKind::Invalid => {
                    return Ok(None);
                }
                Err(WriteError::Store(error)) => return Err(error),
                Err(_) => self.clock.sleep(PAUSE).await,
            }
        }
        Err(StoreError::unavailable("the tag key could not be written for certain, open again"))
    }
}

/// 32 random bytes: the random half of each UUIDv7 is laid over the time in another.
fn new_secret(ids: &dyn IdSource, clock: &dyn Clock) -> [u8; 32] {
    let mut secret = [0; 32];
    for half in secret.chunks_mut(16) {
        let one = ids.uuid(clock.now()).as_u128();
        let two = ids.uuid(clock.now()).as_u128();
        half.copy_from_slice(&(one ^ two.rotate_left(64)).to_be_bytes());
    }
    secret
}
