//! How many partitions a consumer was first started with: progress is kept by partition, so with
//! another number events would be handled twice, or not at all.

use factum_core::{ExpectedRevision, StoreErrorKind, WriteBatch, WriteError};

use super::{End, Worker, broken};
use crate::{
    name::ConsumerName,
    progress,
    target::{Target, layout_key},
    work::Work,
};

impl<W: Work> Worker<W> {
    /// Compares the number with what is stored, or stores it at the first start. Asked before the
    /// first progress is stored, and again behind that: of two processes that begin at once with
    /// two numbers, one sees the other's.
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
            let (stored, expected) = match found {
                Some(found) => {
                    let stored = progress::decode::<usize>(&found.value).map_err(broken)?;
                    (stored, ExpectedRevision::Exact(found.revision))
                }
                // From before it was stored, perhaps: there were no partitions then.
                None => (1, ExpectedRevision::Absent),
            };
            let is_stored = expected != ExpectedRevision::Absent;
            if stored == asked && is_stored {
                return Ok(());
            }
            // What was cleared begins anew, as it likes.
            if stored != asked && self.has_begun(&whole, stored).await? {
                return Err(other_layout(&whole, asked, stored));
            }
            let batch = WriteBatch::new().put(key.clone(), expected, progress::encode(&asked));
            match documents.write(batch).await {
                Ok(_) if stored != asked && self.has_begun(&whole, stored).await? => {
                    return Err(other_layout(&whole, asked, stored));
                }
                Ok(_) => return Ok(()),
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(self.layout_failed(error).await),
            }
        }
    }

    /// Whether anything is stored of it with so many partitions.
    async fn has_begun(&mut self, whole: &ConsumerName, partitions: usize) -> Result<bool, End> {
        for at in 0..partitions {
            match self.target.look(&whole.part(at, partitions)).await {
                Ok(opened) if opened.progress.is_some() => return Ok(true),
                Ok(_) => {}
                Err(error) => return Err(self.target_failed(error).await),
            }
        }
        Ok(false)
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

fn other_layout(whole: &ConsumerName, asked: usize, stored: usize) -> End {
    broken(format!(
        "it was first started with another number of partitions, start it with that, or under \
         another name: consumer={whole} partitions={asked} stored={stored}"
    ))
}
