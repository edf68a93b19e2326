//! Which file a database is, whatever becomes of its name.
//!
//! SQLite finds the write-ahead log and the locks of a database by its name. Under a second name it
//! would find others, and a file that took the name over later is another database.

use std::{
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
};

use factum_kernel::StoreError;

/// Where a database was when it was opened, and which file it was.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    path: PathBuf,
    file: Option<FileId>,
    /// Of its write-ahead log; `None` until there is one.
    wal: Option<FileId>,
}

/// Which file it is. No two that exist have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl Place {
    /// The place of a database that is open.
    pub(crate) fn of(path: &Path) -> Result<Self, StoreError> {
        let found = fs::metadata(path).map_err(|e| unseen(path).with_source(e))?;
        let wal = fs::metadata(wal_of(path)).ok().and_then(|wal| id_of(&wal));
        Ok(Self { path: path.into(), file: id_of(&found), wal })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses to go on where the name leads to another file by now, or to none: nobody would find
    /// what is written, and what is read is not what others see.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if self.file.is_none() || is_there(&self.path, self.file) {
            return Ok(());
        }
        Err(StoreError::unavailable(format!(
            "the database was moved, removed or replaced while it was open; move it back with the \
             files beside it, or close the store and open what is there now: path={}",
            self.path.display()
        )))
    }

    /// Refuses as well where the write-ahead log was taken away: what is in it is found by those
    /// only who have it open.
    pub(crate) fn check_for_writing(&self) -> Result<(), StoreError> {
        self.check()?;
        if self.wal.is_none() || is_there(&wal_of(&self.path), self.wal) {
            return Ok(());
        }
        Err(StoreError::unavailable(format!(
            "the database's write-ahead log was removed or replaced while it was open; close the \
             store, which saves what is in it, and open it again: path={}",
            wal_of(&self.path).display()
        )))
    }
}

/// The path without links, so that it is the same whatever name the database is opened by. What is
/// not there yet is in a folder that is.
///
/// # Errors
/// `Invalid` where the file has a second name of its own, or a link leads nowhere.
pub(crate) fn real(path: &Path) -> Result<PathBuf, StoreError> {
    let at =
        |e| StoreError::invalid(format!("no such path: path={}", path.display())).with_source(e);
    let found = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            if path.is_symlink() {
                let message = "the path is a link to a file that is not there, name that file";
                return Err(StoreError::invalid(format!("{message}: path={}", path.display())));
            }
            let name = path.file_name().unwrap_or_default();
            let folder = path.parent().unwrap_or(Path::new("/"));
            // A folder that is missing is told of by who wants the file.
            return Ok(folder.canonicalize().map_or(path.into(), |folder| folder.join(name)));
        }
        found => found.map_err(at)?,
    };
    let names = names_of(&found);
    if names > 1 {
        return Err(StoreError::invalid(format!(
            "the database has another name as well, by a hard link, and what is written under the \
             one is not seen under the other; put a copy in its place: names={names} path={}",
            path.display()
        )));
    }
    path.canonicalize().map_err(at)
}

/// The write-ahead log beside a database.
pub(crate) fn wal_of(path: &Path) -> PathBuf {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    wal.into()
}

fn is_there(path: &Path, file: Option<FileId>) -> bool {
    match fs::metadata(path) {
        Ok(found) => id_of(&found) == file,
        // What can't be looked at just now may be there still.
        Err(e) => !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

fn unseen(path: &Path) -> StoreError {
    StoreError::unavailable(format!("the database is gone again: path={}", path.display()))
}

#[cfg(unix)]
fn id_of(found: &Metadata) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    Some(FileId { device: found.dev(), inode: found.ino() })
}

#[cfg(unix)]
fn names_of(found: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(found)
}

/// Not every system says which file it is.
#[cfg(not(unix))]
fn id_of(_: &Metadata) -> Option<FileId> {
    None
}

#[cfg(not(unix))]
fn names_of(_: &Metadata) -> u64 {
    1
}
