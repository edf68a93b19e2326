//! How many partitions a consumer was first started with: progress is kept by partition, so with
//! another number events would be handled twice, or not at all.

use factum_core::{ExpectedRevision, StoreErrorKind, WriteBatch, WriteError};

use super::{End, Worker, broken};
use crate::{
    progress,
    target::{Target, layout_key},
    work::Work,
};

impl<W: Work> Worker<W> {
    /// Compares the number with what is stored, or stores it at the first start.
    pub(super) async fn check_layout(&mut self) -> Result<(), End> {
        if !self.is_layout_kept {
            return Ok(());
        }
        let (whole, asked) = (self.name.whole(), self.options.partitions.count());
        let key = layout_key(&whole);
        let documents = self.reading.kernel.documents().clone();
        loop {
            let found = match documents.get(&key).await {
                Ok(found) => found,
                Err(error) => return Err(self.layout_failed(WriteError::Store(error)).await),
            };
            let stored = match found {
                Some(found) => progress::decode::<usize>(&found.value).map_err(broken)?,
                // From before it was stored: there were no partitions then.
                None if self.has_begun(&whole).await? => 1,
                None => {
                    let value = progress::encode(&asked);
                    let batch = WriteBatch::new().put(key.clone(), ExpectedRevision::Absent, value);
                    match documents.write(batch).await {
                        Ok(_) => asked,
                        Err(WriteError::Conflict { .. }) => continue,
                        Err(error) => return Err(self.layout_failed(error).await),
                    }
                }
            };
            if stored != asked {
                return Err(broken(format!(
                    "it was first started with another number of partitions, start it with that, \
                     or under another name: consumer={whole} partitions={asked} stored={stored}"
                )));
            }
            self.is_layout_kept = false;
            return Ok(());
        }
    }

    async fn has_begun(&mut self, whole: &crate::name::ConsumerName) -> Result<bool, End> {
        match self.target.look(whole).await {
            Ok(opened) => Ok(opened.progress.is_some()),
            Err(error) => Err(self.target_failed(error).await),
        }
    }

    async fn layout_failed(&mut self, error: WriteError) -> End {
        match error {
            WriteError::Store(error) if error.kind() != StoreErrorKind::Unavailable => {
                broken(error)
            }
            // Looked at again, it is known.
            error => self.away(error.to_string()).await,
        }
    }
}
