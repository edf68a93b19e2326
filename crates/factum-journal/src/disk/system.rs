//! Files of the operating system.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    File, Files,
    patience::{self, Way},
};

/// A folder of the operating system.
#[derive(Debug, Clone)]
pub(crate) struct SystemFiles {
    folder: PathBuf,
}

impl SystemFiles {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.into() }
    }
}

impl Files for SystemFiles {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let path = self.folder.join(name);
        let opened = fs::File::options().read(true).write(true).open(&path);
        // A reader may lack the right to write; whoever does write is told then.
        let file = match opened {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => fs::File::open(&path)?,
            opened => opened?,
        };
        Ok(Arc::new(SystemFile::new(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut options = fs::File::options();
        options.read(true).write(true).create(true).truncate(true);
        Ok(Arc::new(SystemFile::new(options.open(self.folder.join(name))?)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            // A name that is no UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        fs::File::open(&self.folder)?.sync_all()
    }
}

#[derive(Debug)]
struct SystemFile {
    file: fs::File,
    /// It lies in memory and nowhere else, so that no read waits.
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
        let read = match patience::way(into.len()) {
            Way::Waiting => return self.file.read_at(into, offset),
            Way::None => Err(io::ErrorKind::WouldBlock.into()),
            Way::Hurrying if self.is_memory => self.file.read_at(into, offset),
            Way::Hurrying => read_without_waiting(&self.file, into, offset),
        };
        read.inspect_err(|_| patience::give_up())
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
}

/// Whether a file lies in a file system that is memory.
#[cfg(target_os = "linux")]
fn lies_in_memory(file: &fs::File) -> bool {
    /// From `linux/magic.h`.
    const TMPFS_MAGIC: i128 = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|stat| i128::from(stat.f_type) == TMPFS_MAGIC)
}

/// Reads what the system has in memory.
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
        // On a disk, unless the build's own folder lies in memory.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let made = fs::File::create_new(folder.path().join("file")).unwrap();
        made.write_all_at(&[7; 1 << 20], 0).unwrap();
        made.sync_all().unwrap();
        let file = SystemFiles::new(folder.path()).open("file").unwrap();
        let read = || file.fill_at(&mut [0; 4_096], 512 << 10).ok();
        assert_eq!(without_waiting(read), Some(Some(4_096)));
        fadvise(&made, 0, None, Advice::DontNeed).unwrap();
        if !lies_in_memory(&made) {
            assert_eq!(without_waiting(read), None, "the disk would have to be asked");
        }
        assert_eq!(read(), Some(4_096), "who may wait gets it");
        assert_eq!(without_waiting(read), Some(Some(4_096)), "and then it is in memory");
    }
}
