//! The toy's documents.

use async_trait::async_trait;
use factum_kernel::{
    Direction, Document, DocumentStore, DocumentWrite, ExpectedRevision, KeyRange, Revision,
    ScanPage, ScanQuery, StoreError, WriteBatch, WriteError,
};

use super::{Documents, Flaw, STEP, Toy};

impl Documents {
    fn conflict(&self, batch: &WriteBatch, flaw: Flaw) -> Option<usize> {
        batch.entries().iter().position(|entry| {
            let revision = self.by_key.get(&entry.key).map(|document| document.revision);
            match entry.expected {
                ExpectedRevision::Any => false,
                ExpectedRevision::Absent => revision.is_some(),
                ExpectedRevision::Exact(wanted) if flaw == Flaw::ZeroIsNowhere => {
                    revision != Some(wanted)
                }
                ExpectedRevision::Exact(wanted) => revision.unwrap_or_default() != wanted,
            }
        })
    }

    fn next_revision(&mut self, batch: &WriteBatch, flaw: Flaw) -> Revision {
        if !batch.entries().is_empty() || flaw == Flaw::CountsEmptyWrites {
            self.revision += 1;
        }
        let counted = batch.entries().iter().filter_map(|entry| self.by_key.get(&entry.key));
        match flaw {
            Flaw::ReusesRevisions => {
                counted.map(|document| document.revision.next()).max().unwrap_or(Revision::new(1))
            }
            _ => Revision::new(self.revision),
        }
    }

    fn put(&mut self, entry: &DocumentWrite, revision: Revision) {
        let key = entry.key.clone();
        match &entry.value {
            Some(value) => {
                let document = Document { key: key.clone(), revision, value: value.clone() };
                self.by_key.insert(key, document);
            }
            None => drop(self.by_key.remove(&key)),
        }
    }

    fn write(&mut self, batch: &WriteBatch, flaw: Flaw) -> Result<Revision, WriteError> {
        let conflict = self.conflict(batch, flaw);
        let entries = match conflict {
            Some(_) if flaw != Flaw::SplitsWrites => &[],
            Some(entry) => &batch.entries()[..entry],
            None => batch.entries(),
        };
        let revision = self.next_revision(batch, flaw);
        for entry in entries {
            self.put(entry, revision);
        }
        conflict.map_or(Ok(revision), |entry| Err(WriteError::Conflict { entry }))
    }
}

#[async_trait]
impl DocumentStore for Toy {
    async fn get(&self, key: &[u8]) -> Result<Option<Document>, StoreError> {
        Ok(self.disk.documents.lock().unwrap().by_key.get(key).cloned())
    }

    async fn scan(&self, query: ScanQuery) -> Result<ScanPage, StoreError> {
        query.check()?;
        let by_key = self.disk.documents.lock().unwrap().by_key.clone();
        let mut documents: Vec<_> =
            by_key.into_values().filter(|document| query.range.contains(&document.key)).collect();
        if self.flaw == Flaw::ScansOutOfOrder {
            documents.sort_by_key(|document| document.key.len());
        }
        if query.direction == Direction::Backward {
            documents.reverse();
        }
        let mut bytes = 0;
        let fits = |document: &&Document| {
            bytes += document.key.len() + document.value.len();
            bytes <= query.bytes_max
        };
        let count = documents.iter().take(query.documents_max).take_while(fits).count();
        let count = count.max(1).min(documents.len());
        let more = count < documents.len() && self.flaw != Flaw::EndsScansEarly;
        documents.truncate(count);
        Ok(ScanPage::new(&query, documents, more))
    }

    async fn write(&self, batch: WriteBatch) -> Result<Revision, WriteError> {
        self.check_writes()?;
        self.claims.limits.check_write(&batch)?;
        if self.flaw == Flaw::TwoRevisionWinners {
            let conflict = self.disk.documents.lock().unwrap().conflict(&batch, self.flaw);
            tokio::task::yield_now().await;
            let mut documents = self.disk.documents.lock().unwrap();
            if let Some(entry) = conflict {
                return Err(WriteError::Conflict { entry });
            }
            let revision = documents.next_revision(&batch, self.flaw);
            batch.entries().iter().for_each(|entry| documents.put(entry, revision));
            return Ok(revision);
        }
        self.disk.documents.lock().unwrap().write(&batch, self.flaw)
    }

    async fn clear(&self, range: KeyRange) -> Result<(), StoreError> {
        self.check_writes()?;
        let inclusive = self.flaw == Flaw::ClearsTooMuch;
        let mut left = if self.flaw == Flaw::ClearsOneStep { STEP } else { usize::MAX };
        let mut gone = |key: &bytes::Bytes| {
            let is_meant = range.contains(key) || (inclusive && range.to.as_ref() == Some(key));
            let is_gone = is_meant && left > 0;
            left -= usize::from(is_gone);
            is_gone
        };
        self.disk.documents.lock().unwrap().by_key.retain(|key, _| !gone(key));
        Ok(())
    }
}
