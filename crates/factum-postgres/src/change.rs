//! Truncation and retention, each a transaction of its own under the log's lock.

use std::time::Duration;

use factum_kernel::{
    ChangeError, Retention, StoreError, StreamBounds, StreamChange, StreamId, StreamInfo,
    StreamVersion, Timestamp,
};
use tokio_postgres::{Row, types::Type};

use crate::{
    append::Committer,
    documents::no_row,
    link::get,
    number::{signed, unsigned},
};

impl Committer {
    /// Makes a change, and returns the information about the stream after it.
    pub(crate) fn change(
        &mut self,
        stream: &StreamId,
        change: StreamChange,
    ) -> Result<StreamInfo, ChangeError> {
        // The checks that need no database; the database checks a truncation itself.
        change.check(StreamVersion::MAX)?;
        let (kind, number, retention) = match change {
            StreamChange::Retain(retention) => (1, 0, retention),
            StreamChange::TruncateBefore(first) => (2, signed(first.value()), Retention::default()),
            other => {
                let message =
                    format!("the PostgreSQL store can't do this change: change={other:?}");
                return Err(StoreError::invalid(message).into());
            }
        };
        let now = signed(self.clock.now().as_micros());
        let stream_name = stream.as_str();
        let keep_events = retention.events_max.map(signed);
        let micros = |age: Duration| i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let keep_age = retention.age_max.map(micros);
        let rows = self.session.ask(
            &self.statements.change,
            &[
                (&self.lock_ms, Type::INT4),
                (&now, Type::INT8),
                (&stream_name, Type::TEXT),
                (&kind, Type::INT4),
                (&number, Type::INT8),
                (&keep_events, Type::INT8),
                (&keep_age, Type::INT8),
            ],
        );
        let rows = rows?;
        let row = rows.first().ok_or_else(no_row)?;
        let code: i32 = get(row, 0)?;
        let info = info(row, 1)?;
        match code {
            0 => Ok(info),
            _ => Err(change.check(info.bounds.version).err().unwrap_or_else(no_row).into()),
        }
    }
}

/// Reads the columns of a `stream_info`, from a column on.
pub(crate) fn info(row: &Row, from: usize) -> Result<StreamInfo, StoreError> {
    let number = |column| get::<i64>(row, from + column).map(unsigned);
    let option = |column| get::<Option<i64>>(row, from + column).map(|number| number.map(unsigned));
    let version = |column| number(column).map(StreamVersion::new);
    let time = |column| option(column).map(|micros| micros.map(Timestamp::from_micros));
    let bounds =
        StreamBounds { version: version(0)?, erased_through: version(1)?, deleted_at: version(2)? };
    let retention =
        Retention { events_max: option(3)?, age_max: option(4)?.map(Duration::from_micros) };
    Ok(StreamInfo::new(bounds).with_retention(retention).with_times(time(5)?, time(6)?))
}
