//! A folder that does not exist.

use std::{io, path::PathBuf, sync::Arc};

use super::{File, Files};

/// A folder that does not exist. Verification and repair use it where a part of the journal is
/// missing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AbsentFiles;

fn absent<T>() -> io::Result<T> {
    Err(io::ErrorKind::NotFound.into())
}

impl Files for AbsentFiles {
    fn open(&self, _: &str) -> io::Result<Arc<dyn File>> {
        absent()
    }

    fn create(&self, _: &str) -> io::Result<Arc<dyn File>> {
        absent()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        absent()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        absent()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        absent()
    }

    fn sync_names(&self) -> io::Result<()> {
        absent()
    }

    fn moved_from(&self) -> Option<PathBuf> {
        None
    }

    fn has_writer(&self) -> io::Result<bool> {
        absent()
    }
}
