//! The folder of orders and answers: its names, its permissions, and what is left behind in it.

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

/// The rights of the folder: its owner's alone, and so is what is in it.
const MODE: u32 = 0o700;
/// The rights of a file in it, whatever the mask of its maker: root's are for the owner to read.
const FILE_MODE: u32 = 0o644;

/// The kinds of files that belong to an order.
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

/// The inbox of a journal: of the folder that was opened, wherever it is moved.
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

    /// Makes the inbox if it is not there, and takes away rights that a copy of it gave to others.
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

/// An inbox that is held open.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    files: SystemFiles,
}

impl Inbox {
    /// Makes a file, or empties the one that is there, and locks it.
    pub(crate) fn create(&self, id: Uuid, part: Part) -> io::Result<File> {
        self.create_locked(&name(id, part))
    }

    /// Says that a desk looks, until the file is dropped. Waits for senders that ask just now.
    pub(crate) fn attend(&self) -> io::Result<File> {
        self.create_locked(DESK)
    }

    /// Whether a file of [`attend`](Self::attend) is still the one that senders look at.
    pub(crate) fn is_attended_by(&self, desk: &File) -> bool {
        let Ok(Some(there)) = self.look(DESK) else { return false };
        let id = |file: &File| rustix::fs::fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
        matches!((id(&there), id(desk)), (Ok(there), Ok(desk)) if there == desk)
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

    /// Removes a file. The answer: whether it was there.
    pub(crate) fn remove(&self, id: Uuid, part: Part) -> io::Result<bool> {
        Ok(if_there(self.files.remove(&name(id, part)))?.is_some())
    }

    pub(crate) fn has(&self, id: Uuid, part: Part) -> io::Result<bool> {
        Ok(self.look(&name(id, part))?.is_some())
    }

    /// The bytes of a file, if it is there; of a file that is too large, only its beginning.
    pub(crate) fn read(&self, id: Uuid, part: Part) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.look(&name(id, part))? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(ORDER_BYTES_MAX as u64).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Whether another process holds the lock of a file; `None` if it is not there.
    pub(crate) fn is_held(&self, id: Uuid, part: Part) -> io::Result<Option<bool>> {
        self.is_locked(&name(id, part))
    }

    /// True if a desk is at work: its lock is held.
    pub(crate) fn is_attended(&self) -> io::Result<bool> {
        Ok(self.is_locked(DESK)? == Some(true))
    }

    fn is_locked(&self, name: &str) -> io::Result<Option<bool>> {
        let Some(file) = self.look(name)? else { return Ok(None) };
        match file.try_lock_shared() {
            // Not by the drop alone: a program that is being started may hold a copy of it.
            Ok(()) => file.unlock().map(|()| Some(false)),
            Err(TryLockError::WouldBlock) => Ok(Some(true)),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    fn look(&self, name: &str) -> io::Result<Option<File>> {
        if_there(self.files.open_plain(name, OFlags::RDONLY))
    }

    /// The orders that wait, in the order of their ids. What is left of those whose sender has gone
    /// is removed. What can't be looked at stays, and holds up no other order.
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
