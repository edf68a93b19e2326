//! The interface to the disk: everything that the journal asks of a folder of files. The operating
//! system implements it; in tests, a simulated disk that loses unsynced data does.

mod absent;
mod budget;
mod system;

use std::{fmt, io, path::PathBuf, sync::Arc};

pub(crate) use absent::AbsentFiles;
pub(crate) use budget::{spend, without_waiting};
pub(crate) use system::{FolderId, SystemFiles};

/// A folder of files. Names are plain file names.
pub(crate) trait Files: fmt::Debug + Send + Sync + 'static {
    /// Opens an existing file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Creates a file, or empties the existing one.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Renames a file, and replaces the file that had the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. A reader that has it open can go on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes created, renamed and removed names durable.
    fn sync_names(&self) -> io::Result<()>;

    /// The path at which the folder was opened, if that path now leads to another folder or to
    /// none. Processes that open the path don't see what is written to this folder then.
    fn moved_from(&self) -> Option<PathBuf>;

    /// Returns whether a process has the journal in this folder open for writing.
    fn has_writer(&self) -> io::Result<bool>;
}

/// An open file. Each read and write names its offset, so that threads can share the file.
pub(crate) trait File: fmt::Debug + Send + Sync + 'static {
    /// Reads as many bytes as there are, up to the length of `into`, and returns their number; 0 at
    /// the end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes everything written durable.
    fn sync(&self) -> io::Result<()>;

    /// The length of the file in bytes.
    fn len(&self) -> io::Result<u64>;

    /// The number of names (hard links) of the file. A write to a file with two names changes both.
    fn names(&self) -> io::Result<u64>;
}

impl dyn File {
    /// Reads until `into` is full or the file ends, and returns the number of bytes read.
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
    /// Puts a whole file in place, durably. After a power cut at any moment, the name leads to the
    /// whole new content, or to the former file if there was one.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unfinished = format!("{name}{UNFINISHED}");
        let file = self.create(&unfinished)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        self.rename(&unfinished, name)?;
        self.sync_names()
    }
}

/// The suffix of a file's name until the file is complete. Opening removes such files.
pub(crate) const UNFINISHED: &str = ".unfinished";
