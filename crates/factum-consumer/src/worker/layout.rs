//! The stored number of a consumer's partitions. Progress is stored by partition: with another
//! number, events would be handled twice or not at all.

use std::time::Duration;

use factum_kernel::{ExpectedRevision, WriteBatch, WriteError};

use super::{End, Worker, revoked};
use crate::{name::ConsumerName, progress, target::layout_key, work::Work};

/// The interval at which the other partitions look whether the first one has begun.
const FIRST_EVERY: Duration = Duration::from_millis(10);

impl<W: Work> Worker<W> {
    /// Compares the number with the stored one, or stores it at the first start. Called before the
    /// first progress is stored, and again after it: if two processes begin at the same time with
    /// different numbers, one of them sees the other's.
    pub(super) async fn check_layout(&mut self) -> Result<(), End> {
        if !self.is_layout_kept || self.machine.is_layout_checked() {
            return Ok(());
        }
        let whole = self.name.whole();
        let asked = self.options.partitions.count();
        let key = layout_key(&whole);
        let documents = self.reading.kernel.documents().clone();
        loop {
            let found = match documents.get(&key).await {
                Ok(found) => found,
                Err(error) => return Err(self.layout_failed(WriteError::Store(error)).await),
            };
            let (stored, expected) = match found {
                Some(found) => {
                    let stored = progress::decode::<usize>(&found.value).map_err(End::broken)?;
                    (stored, ExpectedRevision::Exact(found.revision))
                }
                // Progress of an earlier version has no number: there were no partitions then.
                None => (1, ExpectedRevision::Absent),
            };
            let is_stored = expected != ExpectedRevision::Absent;
            if stored == asked && is_stored {
                return Ok(());
            }
            // A consumer that was cleared may begin with any number.
            if stored != asked && self.has_begun(&whole, stored).await? {
                return Err(other_layout(&whole, asked, stored));
            }
            // The first partition decides for all of a process.
            if self.partition > 0 {
                return Err(self.wait_for_first().await);
            }
            let put = |expected, count: usize| {
                let batch = WriteBatch::new().put(key.clone(), expected, progress::encode(&count));
                documents.write(batch)
            };
            match put(expected, asked).await {
                Ok(written) if stored != asked && self.has_begun(&whole, stored).await? => {
                    // The consumer has begun meanwhile with the stored number: put that back.
                    let back = ExpectedRevision::Exact(written);
                    return match put(back, stored).await {
                        Ok(_) | Err(WriteError::Conflict { .. }) => {
                            Err(other_layout(&whole, asked, stored))
                        }
                        Err(error) => Err(self.layout_failed(error).await),
                    };
                }
                Ok(_) => return Ok(()),
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(self.layout_failed(error).await),
            }
        }
    }

    /// Waits for the first partition to begin, here or in another process.
    async fn wait_for_first(&mut self) -> End {
        let clock = self.reading.kernel.clock().clone();
        let mut pause = clock.sleep(FIRST_EVERY);
        loop {
            tokio::select! {
                biased;
                order = self.orders.next() => {
                    let message = "the first partition has not begun yet, try again";
                    if let Err(end) = self.carry_out_meanwhile(order, message) {
                        return end;
                    }
                }
                () = revoked(&mut self.assignment) => return End::Unassigned,
                () = &mut pause => return End::Reopen,
            }
        }
    }

    /// True if progress is stored with this number of partitions.
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
            WriteError::Store(error) if error.kind().is_permanent() => End::broken(error),
            // The next read shows the outcome.
            error => self.outage(error.to_string()).await,
        }
    }
}

fn other_layout(whole: &ConsumerName, asked: usize, stored: usize) -> End {
    End::broken(format!(
        "the consumer was first started with another number of partitions, use that number or \
         another name: consumer={whole} partitions={asked} stored={stored}"
    ))
}
