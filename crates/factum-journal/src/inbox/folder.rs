//! The folder of orders and answers: its file names, its permissions, and the removal of leftovers.

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    io::{self, Read},
    path::PathBuf,
};

use rustix::fs::{Mode, OFlags};
use uuid::Uuid;

use super::{INBOX, ORDER_BYTES_MAX};
use crate::disk::{Files, SystemFiles};

/// The permissions of the folder: for its owner only, which also protects the files in it.
const MODE: u32 = 0o700;
/// The permissions of a file in it, whatever the umask of its maker. The owner must be able to read
/// root's files.
const FILE_MODE: u32 = 0o644;

/// The kinds of files that belong to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// An order that is being written.
    Writing,
    /// An order that waits to be taken.
    Order,
    /// An order that was taken.
    Taken,
    /// An answer that is being written.
    Answering,
    /// A complete answer.
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

/// The file that the receiver locks as long as it works.
const RECEIVER: &str = "desk";

/// The inbox of a journal: of the folder that was opened, even if it is moved.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    journal: SystemFiles,
}

impl Folder {
    /// The inbox of the journal in a folder.
    pub(crate) fn of(journal: &SystemFiles) -> Self {
        Self { journal: journal.clone() }
    }

    /// The path of the inbox, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        self.journal.path().join(INBOX)
    }

    /// Makes the inbox if it does not exist, and removes permissions that a copy of the folder gave
    /// to others.
    pub(crate) fn make(&self) -> io::Result<Inbox> {
        let mode = Mode::from(MODE);
        match rustix::fs::mkdirat(self.journal.folder(), INBOX, mode) {
            Err(e) if e != rustix::io::Errno::EXIST => return Err(e.into()),
            _ => {}
        }
        let inbox = self.open()?;
        if Mode::from_raw_mode(rustix::fs::fstat(inbox.files.folder())?.st_mode) != mode {
            rustix::fs::fchmod(inbox.files.folder(), mode)?;
        }
        Ok(inbox)
    }

    /// Opens the inbox; an error if it is not there.
    pub(crate) fn open(&self) -> io::Result<Inbox> {
        Ok(Inbox { files: self.journal.inside(INBOX)? })
    }
}

/// An open inbox.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    files: SystemFiles,
}

impl Inbox {
    /// Creates a file, or empties the existing one, and locks it.
    pub(crate) fn create(&self, id: Uuid, part: Part) -> io::Result<File> {
        self.create_locked(&name(id, part))
    }

    /// Announces a receiver until the file is dropped. Waits for senders that look at the lock at
    /// this moment.
    pub(crate) fn attend(&self) -> io::Result<File> {
        self.create_locked(RECEIVER)
    }

    /// Returns whether a file of [`attend`](Self::attend) is still the one that senders look at.
    pub(crate) fn is_attended_by(&self, lock: &File) -> bool {
        let Ok(Some(there)) = self.look(RECEIVER) else { return false };
        let id = |file: &File| rustix::fs::fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
        matches!((id(&there), id(lock)), (Ok(there), Ok(lock)) if there == lock)
    }

    fn create_locked(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
        let file = self.files.open_plain(name, flags)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(FILE_MODE))?;
        file.lock()?;
        Ok(file)
    }

    pub(crate) fn rename(&self, id: Uuid, from: Part, to: Part) -> io::Result<()> {
        self.files.rename(&name(id, from), &name(id, to))
    }

    /// Removes a file. Returns whether it was there.
    pub(crate) fn remove(&self, id: Uuid, part: Part) -> io::Result<bool> {
        Ok(if_there(self.files.remove(&name(id, part)))?.is_some())
    }

    pub(crate) fn has(&self, id: Uuid, part: Part) -> io::Result<bool> {
        Ok(self.look(&name(id, part))?.is_some())
    }

    /// The bytes of a file, if it exists; only the beginning of a file that is too large.
    pub(crate) fn read(&self, id: Uuid, part: Part) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.look(&name(id, part))? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(ORDER_BYTES_MAX as u64).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Returns whether another process holds the lock of a file; `None` if the file does not exist.
    pub(crate) fn is_held(&self, id: Uuid, part: Part) -> io::Result<Option<bool>> {
        self.is_locked(&name(id, part))
    }

    /// Returns true if a receiver works: its lock is held.
    pub(crate) fn is_attended(&self) -> io::Result<bool> {
        Ok(self.is_locked(RECEIVER)? == Some(true))
    }

    fn is_locked(&self, name: &str) -> io::Result<Option<bool>> {
        let Some(file) = self.look(name)? else { return Ok(None) };
        match file.try_lock_shared() {
            // The drop alone might not unlock it: a child process that is being started may hold a
            // copy of the descriptor.
            Ok(()) => file.unlock().map(|()| Some(false)),
            Err(TryLockError::WouldBlock) => Ok(Some(true)),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    fn look(&self, name: &str) -> io::Result<Option<File>> {
        if_there(self.files.open_plain(name, OFlags::RDONLY))
    }

    /// The waiting orders, sorted by their ids. Removes the leftovers of orders whose sender has
    /// gone. A file that can't be looked at stays, and does not hold up the other orders.
    pub(crate) fn waiting(&self) -> io::Result<Vec<Uuid>> {
        let mut found = BTreeMap::<Uuid, Vec<Part>>::new();
        for (id, part) in self.files.list()?.iter().filter_map(|name| parse(name)) {
            found.entry(id).or_default().push(part);
        }
        let mut waiting = Vec::new();
        for (id, parts) in found {
            match self.has_sender(id) {
                Ok(true) if parts.contains(&Part::Order) => waiting.push(id),
                Ok(false) => parts.iter().for_each(|part| drop(self.remove(id, *part))),
                Ok(true) | Err(_) => {}
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

fn if_there<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        done => done.map(Some),
    }
}

fn name(id: Uuid, part: Part) -> String {
    format!("{id}.{}", part.suffix())
}

fn parse(name: &str) -> Option<(Uuid, Part)> {
    let (id, suffix) = name.split_once('.')?;
    let part = Part::ALL.into_iter().find(|part| part.suffix() == suffix)?;
    Some((Uuid::parse_str(id).ok()?, part))
}
