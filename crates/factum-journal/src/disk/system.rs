//! Files of the operating system.

use std::{
    fs, io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};

use super::{
    File, Files,
    budget::{self, ReadMode},
};
use crate::lock;

/// The permissions of a new file, before the process's umask.
const MODE: u32 = 0o666;

/// A folder of the operating system that is held open. All work is done inside this folder, also
/// after it was moved or its path was given to another folder.
#[derive(Debug, Clone)]
pub(crate) struct SystemFiles {
    folder: Arc<fs::File>,
    id: FolderId,
    /// The path at which it was opened, without symbolic links.
    path: Arc<Path>,
}

/// The identity of a folder, whatever its path. No two existing folders share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FolderId {
    device: u64,
    inode: u64,
}

impl FolderId {
    fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

impl SystemFiles {
    /// Opens a folder.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path)?;
        let folder = rustix::fs::open(&path, folder_flags(), Mode::empty())?;
        Self::new(folder.into(), &path)
    }

    /// Opens a folder without the means to lock it, as on network file systems.
    #[cfg(test)]
    pub(crate) fn open_unlockable(path: &Path) -> io::Result<Self> {
        let folder = rustix::fs::open(path, folder_flags() | OFlags::PATH, Mode::empty())?;
        Self::new(folder.into(), path)
    }

    /// Opens a folder inside this one.
    pub(crate) fn inside(&self, name: &str) -> io::Result<Self> {
        let folder = rustix::fs::openat(&self.folder, name, folder_flags(), Mode::empty())?;
        Self::new(folder.into(), &self.path.join(name))
    }

    fn new(folder: fs::File, path: &Path) -> io::Result<Self> {
        let id = FolderId::of(&folder.metadata()?);
        Ok(Self { folder: Arc::new(folder), id, path: path.into() })
    }

    /// The open folder, to lock it.
    pub(crate) fn folder(&self) -> &Arc<fs::File> {
        &self.folder
    }

    pub(crate) fn id(&self) -> FolderId {
        self.id
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a file in this folder, as a file of the standard library.
    pub(crate) fn open_plain(&self, name: &str, flags: OFlags) -> io::Result<fs::File> {
        let flags = flags | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.folder, name, flags, Mode::from(MODE))?.into())
    }
}

fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}

impl Files for SystemFiles {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        // A reader may lack the right to write. A write to the file fails later with that error.
        let file = match self.open_plain(name, OFlags::RDWR) {
            Err(e) if is_not_writable(&e) => self.open_plain(name, OFlags::RDONLY)?,
            opened => opened?,
        };
        Ok(Arc::new(SystemFile::new(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
        Ok(Arc::new(SystemFile::new(self.open_plain(name, flags)?)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.folder)? {
            // The journal's names are all UTF-8, so this one is another program's.
            names.extend(entry?.file_name().to_str().map(str::to_owned));
        }
        names.retain(|name| name != "." && name != "..");
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.folder, from, &self.folder, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.folder, name, AtFlags::empty())?)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.folder.sync_all()
    }

    fn moved_from(&self) -> Option<PathBuf> {
        let is_here = match fs::metadata(&self.path) {
            Ok(there) => FolderId::of(&there) == self.id,
            // After any other error the folder may still be there.
            Err(e) => !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        };
        (!is_here).then(|| self.path.to_path_buf())
    }

    fn has_writer(&self) -> io::Result<bool> {
        lock::is_held(self)
    }
}

/// Returns whether an error says that a file can only be read.
fn is_not_writable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

#[derive(Debug)]
struct SystemFile {
    file: fs::File,
    /// True if the file system is in memory, so that no read waits.
    is_memory: bool,
}

impl SystemFile {
    fn new(file: fs::File) -> Self {
        let is_memory = lies_in_memory(&file);
        Self { file, is_memory }
    }
}

impl File for SystemFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = match budget::charge(into.len()) {
            ReadMode::MayWait => return self.file.read_at(into, offset),
            ReadMode::Refused => Err(io::ErrorKind::WouldBlock.into()),
            ReadMode::NoWait if self.is_memory => self.file.read_at(into, offset),
            ReadMode::NoWait => read_without_waiting(&self.file, into, offset),
        };
        read.inspect_err(|_| budget::give_up())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn names(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.nlink())
    }
}

/// Returns whether a file lies in a file system that is in memory.
#[cfg(target_os = "linux")]
fn lies_in_memory(file: &fs::File) -> bool {
    /// From `linux/magic.h`.
    const TMPFS_MAGIC: i128 = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|stat| i128::from(stat.f_type) == TMPFS_MAGIC)
}

/// Reads only what the system holds in memory.
#[cfg(target_os = "linux")]
fn read_without_waiting(file: &fs::File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    use rustix::io::{ReadWriteFlags, preadv2};
    let mut into = [io::IoSliceMut::new(into)];
    Ok(preadv2(file, &mut into, offset, ReadWriteFlags::NOWAIT)?)
}

#[cfg(not(target_os = "linux"))]
fn lies_in_memory(_: &fs::File) -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn read_without_waiting(_: &fs::File, _: &mut [u8], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::WouldBlock.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::fs::{Advice, fadvise};

    use super::*;
    use crate::disk::without_waiting;

    #[test]
    fn what_the_system_has_in_memory_is_read_at_once_and_what_it_has_not_is_left() {
        // On a disk, unless the build's own folder is in memory.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let made = fs::File::create_new(folder.path().join("file")).unwrap();
        made.write_all_at(&[7; 1 << 20], 0).unwrap();
        made.sync_all().unwrap();
        let files = SystemFiles::open(folder.path()).unwrap();
        let file = Files::open(&files, "file").unwrap();
        let read = || file.fill_at(&mut [0; 4_096], 512 << 10).ok();
        assert_eq!(without_waiting(read), Some(Some(4_096)));
        fadvise(&made, 0, None, Advice::DontNeed).unwrap();
        if !lies_in_memory(&made) {
            assert_eq!(without_waiting(read), None, "the disk would have to be read");
        }
        assert_eq!(read(), Some(4_096), "who may wait gets it");
        assert_eq!(without_waiting(read), Some(Some(4_096)), "and then it is in memory");
    }
}
