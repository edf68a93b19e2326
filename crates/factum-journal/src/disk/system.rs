//! Files of the operating system.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{File, Files};

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
        Ok(Arc::new(SystemFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut options = fs::File::options();
        options.read(true).write(true).create(true).truncate(true);
        Ok(Arc::new(SystemFile(options.open(self.folder.join(name))?)))
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
struct SystemFile(fs::File);

impl File for SystemFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
