//! Documents: values under keys, in a table beside the log.

use bytes::Bytes;
use factum_kernel::{
    Direction, Document, ExpectedRevision, KeyRange, PAGE_BYTES_MAX, PAGE_EVENTS_MAX, Revision,
    ScanPage, ScanQuery, StoreError, WriteBatch, WriteError,
};
use tokio_postgres::{Row, types::Type};

use crate::{
    error,
    link::{Parameter, get},
    number::{signed, unsigned},
    pool::Pool,
    statement::Statements,
};

/// The number of documents that one step of a clear removes.
const CLEAR_STEP: i32 = 1_000;

pub(crate) async fn get_one(
    pool: &Pool,
    statements: &Statements,
    key: &[u8],
) -> Result<Option<Document>, StoreError> {
    let rows = pool.read(&statements.get_document, &[(&key, Type::BYTEA)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let revision: Option<i64> = get(row, 0)?;
    let Some(revision) = revision else { return Ok(None) };
    let value: &[u8] = get(row, 1)?;
    Ok(Some(Document {
        key: Bytes::copy_from_slice(key),
        revision: Revision::new(unsigned(revision)),
        value: Bytes::copy_from_slice(value),
    }))
}

pub(crate) async fn scan(
    pool: &Pool,
    statements: &Statements,
    query: &ScanQuery,
) -> Result<ScanPage, StoreError> {
    let from = &query.range.from[..];
    let to = query.range.to.as_deref();
    let is_forward = query.direction == Direction::Forward;
    let documents_max = query.documents_max.min(PAGE_EVENTS_MAX);
    let bytes_max = query.bytes_max.min(PAGE_BYTES_MAX);
    // One more than is wanted, to see whether there are more.
    let max = documents_max as i32 + 1;
    let bytes = bytes_max as i64;
    let rows = pool
        .read(
            &statements.scan_documents,
            &[
                (&from, Type::BYTEA),
                (&to, Type::BYTEA),
                (&is_forward, Type::BOOL),
                (&max, Type::INT4),
                (&bytes, Type::INT8),
            ],
        )
        .await?;
    let mut documents = Vec::with_capacity(rows.len());
    let mut size = 0;
    let mut more = false;
    for row in &rows {
        let document = document(row)?;
        size += document.key.len() + document.value.len();
        more = documents.len() == documents_max || (size > bytes_max && !documents.is_empty());
        if more {
            break;
        }
        documents.push(document);
    }
    // The server leaves out everything after the document that exceeds the bytes.
    more |= size > bytes_max;
    Ok(ScanPage::new(query, documents, more))
}

fn document(row: &Row) -> Result<Document, StoreError> {
    Ok(Document {
        key: Bytes::copy_from_slice(get(row, 0)?),
        revision: Revision::new(unsigned(get(row, 1)?)),
        value: Bytes::copy_from_slice(get(row, 2)?),
    })
}

pub(crate) async fn write(
    pool: &Pool,
    statements: &Statements,
    batch: &WriteBatch,
    lock_ms: i32,
) -> Result<Revision, WriteError> {
    let columns = Columns::of(batch);
    let rows = pool.ask(&statements.write_documents, &columns.parameters(&lock_ms)).await;
    written(&rows?)
}

/// The entries of a write, column by column.
pub(crate) struct Columns<'b> {
    keys: Vec<&'b [u8]>,
    expected: Vec<i64>,
    values: Vec<Option<&'b [u8]>>,
}

impl<'b> Columns<'b> {
    pub(crate) fn of(batch: &'b WriteBatch) -> Self {
        let entries = batch.entries();
        let expected = |expected| match expected {
            ExpectedRevision::Any => -1,
            ExpectedRevision::Absent => 0,
            // An absent document counts as revision zero.
            ExpectedRevision::Exact(revision) => signed(revision.value()),
        };
        Self {
            keys: entries.iter().map(|entry| &entry.key[..]).collect(),
            expected: entries.iter().map(|entry| expected(entry.expected)).collect(),
            values: entries.iter().map(|entry| entry.value.as_deref()).collect(),
        }
    }

    pub(crate) fn parameters<'p>(&'p self, lock_ms: &'p i32) -> Vec<Parameter<'p>> {
        vec![
            (lock_ms, Type::INT4),
            (&self.keys, Type::BYTEA_ARRAY),
            (&self.expected, Type::INT8_ARRAY),
            (&self.values, Type::BYTEA_ARRAY),
        ]
    }
}

/// Reads the database's answer to a write.
pub(crate) fn written(rows: &[Row]) -> Result<Revision, WriteError> {
    let row = rows.first().ok_or_else(no_row)?;
    if let Some(entry) = get::<Option<i32>>(row, 1)? {
        return Err(WriteError::Conflict { entry: usize::try_from(entry).unwrap_or(0) });
    }
    Ok(Revision::new(unsigned(get(row, 0)?)))
}

pub(crate) async fn clear(
    pool: &Pool,
    statements: &Statements,
    range: &KeyRange,
    lock_ms: i32,
) -> Result<(), StoreError> {
    let from = &range.from[..];
    let to = range.to.as_deref();
    loop {
        let rows = pool
            .ask(
                &statements.clear_documents,
                &[
                    (&lock_ms, Type::INT4),
                    (&from, Type::BYTEA),
                    (&to, Type::BYTEA),
                    (&CLEAR_STEP, Type::INT4),
                ],
            )
            .await
            .map_err(error::of_read)?;
        let removed: i32 = get(rows.first().ok_or_else(no_row)?, 0)?;
        if removed < CLEAR_STEP {
            return Ok(());
        }
    }
}

/// The error for a function that answered with no row.
pub(crate) fn no_row() -> StoreError {
    StoreError::corrupt("a function of the log gave no answer, restore it")
}
