//! The documents, in the same file as the log.

use bytes::Bytes;
use factum_kernel::{
    Direction, Document, DocumentWrite, ExpectedRevision, KeyRange, PAGE_BYTES_MAX,
    PAGE_EVENTS_MAX, Revision, ScanPage, ScanQuery, StoreError, WriteBatch, WriteError,
};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::{
    append::Committer,
    error::Result,
    number::{signed, unsigned},
    sql,
    transaction::End,
};

/// The number of documents that one step of a clear removes. Appends go on between two steps.
const CLEAR_STEP: u32 = 1_000;

/// The bytes that a write holds while it waits.
pub(crate) fn size_of(batch: &WriteBatch) -> usize {
    let value = |it: &DocumentWrite| it.value.as_ref().map_or(0, Bytes::len);
    batch.entries().iter().map(|it| it.key.len() + value(it)).sum()
}

pub(crate) fn get(connection: &Connection, key: &[u8]) -> Result<Option<Document>> {
    let mut get = connection.prepare_cached(sql::GET_DOCUMENT)?;
    Ok(get.query_row([key], document).optional()?)
}

/// One page, of at most the size that a page of the log may have, whatever the query asks for.
pub(crate) fn scan(connection: &Connection, query: &ScanQuery) -> Result<ScanPage> {
    let KeyRange { from, to } = &query.range;
    let (sql, start) = match (query.direction, to) {
        (Direction::Forward, _) => (sql::SCAN_FORWARD, from),
        (Direction::Backward, Some(to)) => (sql::SCAN_BACKWARD, to),
        (Direction::Backward, None) => (sql::SCAN_FROM_END, from),
    };
    let documents_max = query.documents_max.min(PAGE_EVENTS_MAX);
    let bytes_max = query.bytes_max.min(PAGE_BYTES_MAX);
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([&start[..]])?;
    let mut documents = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let key = row.get_ref(0)?.as_blob()?;
        let value = row.get_ref(2)?.as_blob()?;
        if !query.range.contains(key) {
            break;
        }
        bytes += key.len() + value.len();
        let is_first = documents.is_empty();
        if documents.len() >= documents_max || (bytes > bytes_max && !is_first) {
            return Ok(ScanPage::new(query, documents, true));
        }
        documents.push(document(row)?);
    }
    Ok(ScanPage::new(query, documents, false))
}

fn document(row: &Row<'_>) -> rusqlite::Result<Document> {
    let bytes = |index| row.get::<_, Vec<u8>>(index).map(Bytes::from);
    let revision = Revision::new(unsigned(row.get(1)?));
    Ok(Document { key: bytes(0)?, revision, value: bytes(2)? })
}

impl Committer {
    /// Writes all entries or none, in a transaction of their own.
    pub(crate) fn write(
        &mut self,
        batch: &WriteBatch,
    ) -> std::result::Result<Revision, WriteError> {
        let done = self.session.transact(|connection, _| {
            if batch.entries().is_empty() {
                let mut revision = connection.prepare_cached(sql::REVISION)?;
                return Ok(End::Rollback(Ok(revision.query_row([], revision_in)?)));
            }
            if let Some(entry) = first_conflict(connection, batch)? {
                return Ok(End::Rollback(Err(WriteError::Conflict { entry })));
            }
            Ok(End::Commit(Ok(store(connection, batch)?)))
        });
        done?
    }

    /// Removes some of the documents of a range. Returns the rest of the range, if there is one.
    pub(crate) fn clear_step(
        &mut self,
        range: KeyRange,
    ) -> std::result::Result<Option<KeyRange>, WriteError> {
        let done = self.session.transact(|connection, _| {
            let mut after = connection.prepare_cached(sql::CLEAR_STEP)?;
            let after: Option<Vec<u8>> =
                after.query_row((&range.from[..], CLEAR_STEP), |row| row.get(0)).optional()?;
            let after = after.filter(|key| range.contains(key)).map(Bytes::from);
            let step = after.as_ref().or(range.to.as_ref());
            match step {
                Some(to) => {
                    connection.prepare_cached(sql::CLEAR)?.execute([&range.from[..], &to[..]])?
                }
                None => connection.prepare_cached(sql::CLEAR_TO_END)?.execute([&range.from[..]])?,
            };
            Ok(End::Commit(after.map(|from| KeyRange { from, to: range.to.clone() })))
        });
        Ok(done?)
    }
}

fn first_conflict(connection: &Connection, batch: &WriteBatch) -> Result<Option<usize>> {
    let mut find = connection.prepare_cached(sql::DOCUMENT_REVISION)?;
    for (entry, write) in batch.entries().iter().enumerate() {
        if write.expected == ExpectedRevision::Any {
            continue;
        }
        let there = find.query_row([&write.key[..]], revision_in).optional()?;
        if !write.expected.matches(there) {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

fn store(connection: &Connection, batch: &WriteBatch) -> Result<Revision> {
    let revision = connection.prepare_cached(sql::NEXT_REVISION)?.query_row([], revision_in)?;
    let mut put = connection.prepare_cached(sql::PUT_DOCUMENT)?;
    let mut remove = connection.prepare_cached(sql::REMOVE_DOCUMENT)?;
    for DocumentWrite { key, value, .. } in batch.entries() {
        match value {
            Some(value) => put.execute((&key[..], signed(revision.value()), &value[..]))?,
            None => remove.execute([&key[..]])?,
        };
    }
    Ok(revision)
}

fn revision_in(row: &Row<'_>) -> rusqlite::Result<Revision> {
    row.get(0).map(unsigned).map(Revision::new)
}

/// The error of a clear: it has no conflicts, and may be repeated safely after an unknown outcome.
pub(crate) fn clear_error(error: WriteError) -> StoreError {
    match error {
        WriteError::Store(error) | WriteError::Indeterminate(error) => error,
        other => StoreError::internal("a clear had a conflict").with_source(other),
    }
}
