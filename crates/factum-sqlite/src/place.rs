//! The identity of a database's file, whatever happens to its path.
//!
//! SQLite finds the write-ahead log and the locks of a database by its path. Under a second name it
//! would find others, and a file that gets the path later is another database.

use std::{
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
};

use factum_kernel::StoreError;

/// The path at which a database was opened, and the identity of its files.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    path: PathBuf,
    file: Option<FileId>,
    /// The write-ahead log; `None` until there is one.
    wal: Option<FileId>,
}

/// The identity of a file. No two existing files share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl Place {
    /// The place of an open database.
    pub(crate) fn of(path: &Path) -> Result<Self, StoreError> {
        let found = fs::metadata(path).map_err(|e| unseen(path).with_source(e))?;
        let wal = fs::metadata(wal_of(path)).ok().and_then(|wal| id_of(&wal));
        Ok(Self { path: path.into(), file: id_of(&found), wal })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fails if the path now leads to another file, or to none. Other processes would not find what
    /// is written, and reads would not show what they see.
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

    /// Fails as well if the write-ahead log was taken away: only processes that have it open can
    /// read its content.
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

/// The path without links, so that it is the same under whatever path the database is opened. If
/// the file does not exist yet, its folder does.
///
/// # Errors
/// `Invalid` if the file has a second name, or if a link leads nowhere.
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
            // The caller that opens the file reports a missing folder.
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

/// The path of a database's write-ahead log.
pub(crate) fn wal_of(path: &Path) -> PathBuf {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    wal.into()
}

fn is_there(path: &Path, file: Option<FileId>) -> bool {
    match fs::metadata(path) {
        Ok(found) => id_of(&found) == file,
        // After any other error the file may still be there.
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

/// There is no identity: not every system has one.
#[cfg(not(unix))]
fn id_of(_: &Metadata) -> Option<FileId> {
    None
}

#[cfg(not(unix))]
fn names_of(_: &Metadata) -> u64 {
    1
}
