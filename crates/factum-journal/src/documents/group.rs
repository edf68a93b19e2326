//! The commit of a group of writes: planning, one frame, one sync.

use std::sync::{LockResult, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use factum_kernel::{ExpectedRevision, Revision, StoreError, Timestamp, WriteBatch, WriteError};
use hashbrown::HashMap;

use super::Documents;
use crate::{
    frame::{self, FrameKind},
    record::{self, DocumentRecord, RecordPlace},
    tail::{LogTail, TailError},
};

/// The most bytes of one write, which must fit in one frame.
const WRITE_BYTES_MAX: usize = 48 << 20;
/// The most bytes of a record besides its key and value.
const RECORD_BYTES_EXTRA: usize = 32;
/// A larger buffer is freed after the frame that needed it.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// The writing end of the log.
#[derive(Debug)]
pub(super) struct DocumentWriter {
    tail: LogTail,
    /// The next revision.
    next: u64,
    buffer: BytesMut,
}

/// The fates of the writes of a group.
#[derive(Default)]
struct Plan<'b> {
    outcomes: Vec<Result<Revision, WriteError>>,
    /// The writes to store, each with its revision.
    writes: Vec<(u64, &'b WriteBatch)>,
    bytes: usize,
    /// The revisions that earlier writes of the group give to keys; `None`: removed.
    before: HashMap<&'b Bytes, Option<u64>>,
}

/// The most bytes that a write takes in a frame.
pub(super) fn size_of(batch: &WriteBatch) -> usize {
    let of = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
    let sizes = batch.entries().iter().map(|it| it.key.len() + of(&it.value) + RECORD_BYTES_EXTRA);
    sizes.sum::<usize>() + RECORD_BYTES_EXTRA
}

impl Documents {
    /// Allows writes, which are appended to `tail`.
    pub(crate) fn begin_writing(&self, tail: LogTail, next: u64) {
        let buffer = BytesMut::new();
        let writer = DocumentWriter { tail, next, buffer };
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
    }

    /// Writes what is queued, and marks the log of documents as closed. Nothing is written after
    /// that.
    pub(crate) fn close(&self) {
        // Not left to the leader of the queue, which may be a thread that waits for this closing.
        self.serve_queue();
        // After a panic no state can be relied on, and the next opening checks the log itself.
        if let Some(mut writer) = self.writer.lock().ok().and_then(|mut writer| writer.take()) {
            writer.tail.close(writer.next);
        }
    }

    /// Waits for a write under way, then accepts no more writes, and writes no mark. The folder's
    /// lock is about to be released.
    pub(crate) fn abandon(&self) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writer.as_mut() {
            writer.tail.abandon();
        }
    }

    /// Ends writing as if the process had been killed.
    #[cfg(test)]
    pub(crate) fn kill(&self) {
        self.writer.lock().unwrap().take();
    }

    #[cfg(test)]
    pub(crate) fn next_revision(&self) -> u64 {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.as_ref().map_or(0, |writer| writer.next)
    }

    /// Stores the valid writes of a group, in order, durably. Returns one outcome per write.
    #[cfg(test)]
    pub(crate) fn commit(&self, batches: &[&WriteBatch]) -> Vec<Result<Revision, WriteError>> {
        self.commit_with(self.writer.lock(), batches)
    }

    /// Stores a group, for the caller that holds the writer.
    pub(super) fn commit_with(
        &self,
        writer: LockResult<MutexGuard<'_, Option<DocumentWriter>>>,
        batches: &[&WriteBatch],
    ) -> Vec<Result<Revision, WriteError>> {
        let refused = |error: StoreError| {
            batches.iter().map(|_| Err(WriteError::Store(error.clone()))).collect()
        };
        let Ok(mut writer) = writer else {
            return refused(StoreError::internal("a write panicked, open the store again"));
        };
        let Some(writer) = writer.as_mut() else { return refused(StoreError::closed()) };
        // After a failure the writes under way may be stored, so that even a conflict would be a
        // guess.
        if let Err(error) = writer.tail.check() {
            return refused(error);
        }
        let plan = self.plan(batches, writer.next);
        match self.store(writer, &plan) {
            Ok(()) => plan.outcomes,
            Err(error) => plan.outcomes.into_iter().map(|it| Err(failed(it, &error))).collect(),
        }
    }

    /// Decides each write of the group against the stored documents and the earlier writes of the
    /// group.
    fn plan<'b>(&self, batches: &[&'b WriteBatch], mut next: u64) -> Plan<'b> {
        let mut plan = Plan::default();
        for &batch in batches {
            let size = size_of(batch);
            let outcome = self.check(batch, size, &plan.before);
            if outcome.is_ok() && !batch.entries().is_empty() {
                for entry in batch.entries() {
                    plan.before.insert(&entry.key, entry.value.is_some().then_some(next));
                }
                plan.writes.push((next, batch));
                plan.bytes += size;
                next += 1;
            }
            // An empty write gets the revision of the write before it.
            plan.outcomes.push(outcome.map(|()| Revision::new(next - 1)));
        }
        plan
    }

    fn check(
        &self,
        batch: &WriteBatch,
        size: usize,
        before: &HashMap<&Bytes, Option<u64>>,
    ) -> Result<(), WriteError> {
        if size > WRITE_BYTES_MAX {
            let message = format!("too many bytes in a write: actual={size} max={WRITE_BYTES_MAX}");
            return Err(StoreError::invalid(message).into());
        }
        for (index, entry) in batch.entries().iter().enumerate() {
            if entry.expected == ExpectedRevision::Any {
                continue;
            }
            let there = match before.get(&entry.key) {
                Some(there) => *there,
                None => self.revision(&entry.key)?,
            };
            if !entry.expected.matches(there.map(Revision::new)) {
                return Err(WriteError::Conflict { entry: index });
            }
        }
        Ok(())
    }

    fn revision(&self, key: &[u8]) -> Result<Option<u64>, StoreError> {
        let item = self.find(key)?;
        Ok(item.filter(|item| item.value.is_some()).map(|item| item.revision))
    }

    /// Writes one frame, durably, and then shows its content to readers.
    fn store(&self, writer: &mut DocumentWriter, plan: &Plan<'_>) -> Result<(), TailError> {
        let Some((first, _)) = plan.writes.first() else { return Ok(()) };
        self.begin(writer, plan.bytes)?;
        let DocumentWriter { tail, next, buffer } = writer;
        let seed = tail.segment.seed;
        let base_at = tail.segment.header.base_at;
        for (revision, batch) in &plan.writes {
            let place = RecordPlace { seed, base_at, position: *revision };
            for entry in batch.entries() {
                let value = entry.value.as_deref();
                let document = DocumentRecord { revision: *revision, key: &entry.key, value };
                record::put_document(buffer, place, &document);
            }
            record::put_commit(buffer, place);
        }
        let framed = frame::finish(buffer, tail.place(), *first, FrameKind::Group);
        framed.map_err(TailError::NotWritten)?;
        tail.write(buffer)?;
        *next += plan.writes.len() as u64;
        if buffer.capacity() > BUFFER_BYTES_MAX {
            *buffer = BytesMut::new();
        }
        self.update(|state| {
            for (revision, batch) in &plan.writes {
                for entry in batch.entries() {
                    state.active.set(&entry.key, *revision, entry.value.as_deref());
                }
            }
        });
        if tail.request_spare() {
            self.duties.prepare_spare(&tail.spare, tail.next_capacity());
        }
        Ok(())
    }

    fn begin(&self, writer: &mut DocumentWriter, bytes: usize) -> Result<(), TailError> {
        let DocumentWriter { tail, next, buffer } = writer;
        if tail.is_full(bytes, *next) {
            self.make_room().map_err(TailError::NotWritten)?;
            tail.roll(*next, Timestamp::EPOCH)?;
            self.update(|state| state.seal(&tail.segment));
            self.duties.flush();
        }
        frame::begin(buffer);
        Ok(())
    }
}

/// The outcome of a write whose group failed. A write that was refused because of another write of
/// the group was refused in error; nothing of it was stored.
fn failed(outcome: Result<Revision, WriteError>, error: &TailError) -> WriteError {
    match (outcome, error) {
        (Err(WriteError::Store(own)), _) => WriteError::Store(own),
        (Ok(_), TailError::Unknown(error)) => WriteError::Indeterminate(error.clone()),
        (_, TailError::Unknown(error) | TailError::NotWritten(error)) => {
            WriteError::Store(error.clone())
        }
    }
}
