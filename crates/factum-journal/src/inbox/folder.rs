//! The folder of orders and answers: its names, its permissions, and what is left behind in it.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{INBOX, ORDER_BYTES_MAX};

/// What a file of an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// An order that is not whole yet.
    Writing,
    /// An order that waits.
    Order,
    /// An order that is carried out.
    Taken,
    /// An answer that is not whole yet.
    Answering,
    /// An answer.
    Answer,
}

impl Part {
    const ALL: [Self; 5] = [Self::Writing, Self::Order, Self::Taken, Self::Answering, Self::Answer];

    fn suffix(self) -> &'static str {
        match self {
            Self::Writing => "writing",
            Self::Order => "order",
            Self::Taken => "taken",
            Self::Answering => "answering",
            Self::Answer => "answer",
        }
    }
}

/// The file that the desk holds a lock on as long as it looks.
const DESK: &str = "desk";

/// The inbox of a journal.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// That of the journal in a folder.
    pub(crate) fn of(journal: &Path) -> Self {
        Self { path: journal.join(INBOX) }
    }

    pub(crate) fn shown(&self) -> std::path::Display<'_> {
        self.path.display()
    }

    /// Makes it, so that only the journal's owner may enter it.
    pub(crate) fn make(&self) -> io::Result<()> {
        match private::make_dir(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        private::restrict(&self.path)
    }

    pub(crate) fn is_there(&self) -> bool {
        self.path.is_dir()
    }

    fn path(&self, id: Uuid, part: Part) -> PathBuf {
        self.path.join(format!("{id}.{}", part.suffix()))
    }

    /// Makes a file, or empties the one that is there, and locks it.
    pub(crate) fn create(&self, id: Uuid, part: Part) -> io::Result<File> {
        let file = private::options().open(self.path(id, part))?;
        file.lock()?;
        Ok(file)
    }

    pub(crate) fn rename(&self, id: Uuid, from: Part, to: Part) -> io::Result<()> {
        fs::rename(self.path(id, from), self.path(id, to))
    }

    /// Removes a file. The answer: whether it was there.
    pub(crate) fn remove(&self, id: Uuid, part: Part) -> io::Result<bool> {
        match fs::remove_file(self.path(id, part)) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    pub(crate) fn has(&self, id: Uuid, part: Part) -> io::Result<bool> {
        self.path(id, part).try_exists()
    }

    /// What is in a file, if it is there; of one that is too large, only its beginning.
    pub(crate) fn read(&self, id: Uuid, part: Part) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path(id, part)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(ORDER_BYTES_MAX as u64).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Whether another process holds the lock of a file; `None` if it is not there.
    pub(crate) fn is_held(&self, id: Uuid, part: Part) -> io::Result<Option<bool>> {
        is_held(&self.path(id, part))
    }

    /// Whether a desk looks.
    pub(crate) fn is_attended(&self) -> io::Result<bool> {
        Ok(is_held(&self.path.join(DESK))? == Some(true))
    }

    /// Says that a desk looks, until the file is dropped. Waits for senders that ask just now.
    pub(crate) fn attend(&self) -> io::Result<File> {
        let file = private::options().open(self.path.join(DESK))?;
        file.lock()?;
        Ok(file)
    }

    /// The orders that wait, in the order of their ids. What is left of those whose sender has gone
    /// is removed.
    pub(crate) fn waiting(&self) -> io::Result<Vec<Uuid>> {
        let mut found = BTreeMap::<Uuid, Vec<Part>>::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if let Some((id, part)) = name.to_str().and_then(parse) {
                found.entry(id).or_default().push(part);
            }
        }
        let mut waiting = Vec::new();
        for (id, parts) in found {
            if !self.has_sender(id)? {
                parts.iter().try_for_each(|part| self.remove(id, *part).map(drop))?;
            } else if parts.contains(&Part::Order) {
                waiting.push(id);
            }
        }
        Ok(waiting)
    }

    fn has_sender(&self, id: Uuid) -> io::Result<bool> {
        for part in [Part::Writing, Part::Order, Part::Taken] {
            if self.is_held(id, part)? == Some(true) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn is_held(path: &Path) -> io::Result<Option<bool>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match file.try_lock() {
        // Not by the drop alone: a program that is being started may hold a copy of it.
        Ok(()) => file.unlock().map(|()| Some(false)),
        Err(TryLockError::WouldBlock) => Ok(Some(true)),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

fn parse(name: &str) -> Option<(Uuid, Part)> {
    let (id, suffix) = name.split_once('.')?;
    let part = Part::ALL.into_iter().find(|part| part.suffix() == suffix)?;
    Some((Uuid::parse_str(id).ok()?, part))
}

/// What is the owner's alone.
#[cfg(unix)]
mod private {
    use std::{
        fs::{self, DirBuilder, OpenOptions, Permissions},
        io,
        os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
        path::Path,
    };

    const OTHERS: u32 = 0o077;

    pub(super) fn make_dir(path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)
    }

    /// Takes from others what a copy of the folder may have given them.
    pub(super) fn restrict(path: &Path) -> io::Result<()> {
        let mode = fs::symlink_metadata(path)?.permissions().mode();
        if mode & OTHERS == 0 {
            return Ok(());
        }
        fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS))
    }

    pub(super) fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        options
    }
}

/// What is the owner's alone, as far as the folder's own permissions say so.
#[cfg(not(unix))]
mod private {
    use std::{
        fs::{self, OpenOptions},
        io,
        path::Path,
    };

    pub(super) fn make_dir(path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    pub(super) fn restrict(_: &Path) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        options
    }
}
