//! The stored rows of a consumer.

use std::sync::Arc;

use bytes::Bytes;
use factum_consumer::{Fence, Opened};
use factum_kernel::StreamId;
use sqlx::{AssertSqlSafe, Row, postgres::PgRow};

use super::transaction::PostgresTx;

/// The rows of a consumer: its progress and its dead letters.
pub(crate) struct ConsumerRows {
    consumer: PgRow,
    letters: Vec<PgRow>,
}

impl ConsumerRows {
    /// Reads the rows with these statements.
    pub(crate) async fn read(
        consumer: &Arc<str>,
        letters: &Arc<str>,
        name: &str,
        tx: &mut PostgresTx,
    ) -> Result<Option<Self>, sqlx::Error> {
        let consumer = sqlx::query(AssertSqlSafe(consumer.clone())).bind(name);
        let Some(consumer) = consumer.fetch_optional(&mut **tx).await? else { return Ok(None) };
        let letters = sqlx::query(AssertSqlSafe(letters.clone())).bind(name);
        Ok(Some(Self { consumer, letters: letters.fetch_all(&mut **tx).await? }))
    }

    /// Returns true if the rows are of a build that was cleared.
    pub(crate) fn is_closed(&self) -> bool {
        self.consumer.try_get::<i64, _>(0).is_ok_and(|fence| fence < 0)
    }

    pub(crate) fn opened(&self) -> Result<Opened, sqlx::Error> {
        let bytes = |at: usize| {
            let bytes = self.consumer.try_get::<Option<Vec<u8>>, _>(at);
            bytes.map(|bytes| bytes.map(Bytes::from))
        };
        let mut letters = Vec::with_capacity(self.letters.len());
        for row in &self.letters {
            let stream = row.try_get::<String, _>(0)?.parse::<StreamId>();
            let stream = stream.map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
            letters.push((stream, Bytes::from(row.try_get::<Vec<u8>, _>(1)?)));
        }
        let fence = Fence(self.consumer.try_get::<i64, _>(0)?.cast_unsigned());
        Ok(Opened { fence, progress: bytes(1)?, mark: bytes(2)?, letters })
    }
}
