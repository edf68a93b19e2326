//! The end of the log as a server has answered it, and which server that was.

use factum_kernel::{Position, StoreError};
use tokio_postgres::Row;

use crate::{documents::no_row, link::get, number::unsigned};

/// The end of the log as a server has answered it. What another server answers says nothing of
/// this one: a standby that was promoted may lack the end of the log that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Which server: a number that it got when it was started.
    pub(crate) server: Vec<u8>,
    pub(crate) head: Position,
}

impl Seen {
    /// What `log_end` answers.
    pub(crate) fn of(rows: &[Row]) -> Result<Self, StoreError> {
        let row = rows.first().ok_or_else(no_row)?;
        let head = Position::new(unsigned(get(row, 0)?));
        Ok(Self { server: get::<&[u8]>(row, 3)?.into(), head })
    }

    /// Takes what the same server has answered elsewhere.
    pub(crate) fn learn(&mut self, other: &Self) {
        if self.server == other.server {
            self.head = self.head.max(other.head);
        }
    }
}
