//! The end of the log that a server answered, and the identity of that server.

use factum_kernel::{Position, StoreError};
use tokio_postgres::Row;

use crate::{documents::no_row, link::get, number::unsigned};

/// The end of the log that a server answered. The answer of another server says nothing about this
/// one: a promoted standby may lack the end of the former log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The identity of the server: a number that it got when it was started.
    pub(crate) server: Vec<u8>,
    pub(crate) head: Position,
}

impl Seen {
    /// Reads the answer of `log_end`.
    pub(crate) fn of(rows: &[Row]) -> Result<Self, StoreError> {
        let row = rows.first().ok_or_else(no_row)?;
        let head = Position::new(unsigned(get(row, 0)?));
        Ok(Self { server: get::<&[u8]>(row, 3)?.into(), head })
    }

    /// Takes a later answer of the same server.
    pub(crate) fn learn(&mut self, other: &Self) {
        if self.server == other.server {
            self.head = self.head.max(other.head);
        }
    }
}
