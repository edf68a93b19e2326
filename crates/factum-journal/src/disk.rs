//! The seam to the disk: everything the journal asks of a folder of files. Under it is the
//! operating system, or in tests a disk that loses what was not synced.

mod absent;
mod patience;
mod system;

use std::{fmt, io, path::PathBuf, sync::Arc};

pub(crate) use absent::AbsentFiles;
pub(crate) use patience::{spend, without_waiting};
pub(crate) use system::{FolderId, SystemFiles};

/// A folder of files. Names are plain file names.
pub(crate) trait Files: fmt::Debug + Send + Sync + 'static {
    /// Opens a file that is there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Makes a file, or empties one that is there.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Gives a file another name, in place of whatever had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; who has it open can go on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable: what was made, renamed and removed.
    fn sync_names(&self) -> io::Result<()>;

    /// Where the folder was when it was opened, if something else is there now, or nothing. What
    /// is written to it then is found by none who looks for it under its name.
    fn moved_from(&self) -> Option<PathBuf>;

    /// Whether a process has the journal open for writing whose folder this is.
    fn has_writer(&self) -> io::Result<bool>;
}

/// An open file. Reads and writes say where, so that threads can share it.
pub(crate) trait File: fmt::Debug + Send + Sync + 'static {
    /// Reads some bytes, as many as there are up to the length of `into`; 0 at the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes durable what was written.
    fn sync(&self) -> io::Result<()>;

    /// How long the file is.
    fn len(&self) -> io::Result<u64>;

    /// How many names it has. What is written to a file that has two is written to both.
    fn names(&self) -> io::Result<u64>;
}

impl dyn File {
    /// Reads until `into` is full or the file ends. The answer: how much was read.
    pub(crate) fn fill_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.read_at(&mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    /// Reads the whole file.
    pub(crate) fn read_all(&self) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.len()?).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        let read = self.fill_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

impl dyn Files {
    /// Puts a whole file in place, durably: whoever finds the name finds all of the bytes, at
    /// whatever moment the power was cut.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unfinished = format!("{name}{UNFINISHED}");
        let file = self.create(&unfinished)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        self.rename(&unfinished, name)?;
        self.sync_names()
    }
}

/// What the name of a file ends in until it is whole. Such files are removed at opening.
pub(crate) const UNFINISHED: &str = ".unfinished";
