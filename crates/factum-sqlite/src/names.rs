//! The texts that many events share, each stored once under a number.

use rusqlite::{CachedStatement, Connection, OptionalExtension};

use crate::{error::Result, recent::Recent, sql};

/// The most numbers of each kind in the writer's cache.
const NAMES_CACHED_MAX: usize = 16_384;

/// A kind of text that is stored once and then referred to by number.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Category,
    Type,
    Tag,
}

impl Kind {
    /// The number of a text; `None` if no event has it.
    pub(crate) fn find(self, connection: &Connection, name: &str) -> Result<Option<i64>> {
        let sql = match self {
            Self::Category => sql::FIND_CATEGORY,
            Self::Type => sql::FIND_TYPE,
            Self::Tag => sql::FIND_TAG,
        };
        let mut find = connection.prepare_cached(sql)?;
        Ok(find.query_row([name], |row| row.get(0)).optional()?)
    }

    fn adding(self, connection: &Connection) -> Result<CachedStatement<'_>> {
        let sql = match self {
            Self::Category => sql::ADD_CATEGORY,
            Self::Type => sql::ADD_TYPE,
            Self::Tag => sql::ADD_TAG,
        };
        Ok(connection.prepare_cached(sql)?)
    }
}

/// The writer's cache of numbers, of one kind.
#[derive(Debug)]
pub(crate) struct Names {
    kind: Kind,
    numbers: Recent<Box<str>, i64>,
    /// The last text that was asked for: consecutive events often have the same type.
    last: Option<(Box<str>, i64)>,
}

impl Names {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, numbers: Recent::new(NAMES_CACHED_MAX), last: None }
    }

    /// The number of a text, if it has one.
    pub(crate) fn find(&mut self, connection: &Connection, name: &str) -> Result<Option<i64>> {
        if let Some((_, number)) = self.last.as_ref().filter(|(last, _)| **last == *name) {
            return Ok(Some(*number));
        }
        if let Some(number) = self.numbers.get(name) {
            self.last = Some((name.into(), number));
            return Ok(Some(number));
        }
        let found = self.kind.find(connection, name)?;
        if let Some(number) = found {
            self.numbers.insert(name.into(), number);
        }
        Ok(found)
    }

    /// The number of a text, which gets one if it has none.
    pub(crate) fn intern(&mut self, connection: &Connection, name: &str) -> Result<i64> {
        if let Some(number) = self.find(connection, name)? {
            return Ok(number);
        }
        let number = self.kind.adding(connection)?.insert([name])?;
        self.numbers.insert(name.into(), number);
        Ok(number)
    }

    pub(crate) fn forget(&mut self) {
        self.numbers.clear();
        self.last = None;
    }
}
