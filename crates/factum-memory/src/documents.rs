//! The documents, in the same memory.

use factum_kernel::{
    Direction, Document, DocumentWrite, KeyRange, Revision, ScanPage, ScanQuery, WriteBatch,
    WriteError,
};

use crate::log::Log;

pub(crate) fn write(log: &mut Log, batch: &WriteBatch) -> Result<Revision, WriteError> {
    for (entry, write) in batch.entries().iter().enumerate() {
        let there = log.documents.get(&write.key).map(|document| document.revision);
        if !write.expected.matches(there) {
            return Err(WriteError::Conflict { entry });
        }
    }
    if batch.entries().is_empty() {
        return Ok(log.revision);
    }
    log.revision = log.revision.next();
    for DocumentWrite { key, value, .. } in batch.entries() {
        match value {
            None => log.documents.remove(key),
            Some(value) => {
                let key = key.clone();
                let value = value.clone();
                let revision = log.revision;
                log.documents.insert(key.clone(), Document { key, revision, value })
            }
        };
    }
    Ok(log.revision)
}

pub(crate) fn scan(log: &Log, query: &ScanQuery) -> ScanPage {
    let mut inside = log
        .documents
        .range(query.range.from.clone()..)
        .take_while(|(key, _)| query.range.contains(key))
        .map(|(_, document)| document);
    let mut reversed;
    let documents: &mut dyn Iterator<Item = &Document> = match query.direction {
        Direction::Forward => &mut inside,
        Direction::Backward => {
            reversed = inside.collect::<Vec<_>>().into_iter().rev();
            &mut reversed
        }
    };
    let mut taken = Vec::new();
    let mut bytes = 0;
    let mut more = false;
    for document in documents {
        bytes += document.key.len() + document.value.len();
        let fits = taken.is_empty() || bytes <= query.bytes_max;
        if taken.len() >= query.documents_max || !fits {
            more = true;
            break;
        }
        taken.push(document.clone());
    }
    ScanPage::new(query, taken, more)
}

pub(crate) fn clear(log: &mut Log, range: &KeyRange) {
    log.documents.retain(|key, _| !range.contains(key));
}
