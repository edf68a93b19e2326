//! The lock of a journal, which allows one writer at a time and names its process.
//!
//! A writer locks the folders themselves, so that neither a second path nor a removed file leads
//! around the lock. It also locks the file `lock`, the only lock that older versions know.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    fs::{File, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_kernel::{Clock, StoreError, SystemClock};
use rustix::fs::OFlags;

use crate::{
    disk::{FolderId, SystemFiles},
    place::{DOCUMENTS, LOG},
    synced::Synced,
};

/// The name of the lock file. The file stays when the lock is released; only the lock on it means
/// anything.
pub(crate) const LOCK: &str = "lock";

/// The writers of this process by their folders; the flag tells whether the writer is about to go.
static WRITERS: Mutex<BTreeMap<FolderId, Arc<AtomicBool>>> = Mutex::new(BTreeMap::new());
/// The longest wait for a writer that is about to go.
const LEAVE_MAX: Duration = Duration::from_secs(30);
/// Notified when a writer has gone.
static GONE: Condvar = Condvar::new();

fn writers() -> MutexGuard<'static, BTreeMap<FolderId, Arc<AtomicBool>>> {
    // No code panics while it holds this lock.
    WRITERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held while a journal is open for writing, or while no writer may open it.
#[derive(Debug)]
pub(crate) struct Lock {
    folder: FolderId,
    /// The locked files, in the order of locking.
    held: Vec<Arc<File>>,
    /// `None`: the lock is shared, and its holder does not write.
    is_leaving: Option<Arc<AtomicBool>>,
}

/// Its drop announces that a writer is about to go. Another opening in this process then waits for
/// the release instead of failing.
#[derive(Debug)]
pub(crate) struct Leave(Arc<AtomicBool>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut writers = writers();
        // Closing alone would not unlock: a child process that is just being started has copies of
        // the descriptors. The folder comes last, so that a process that finds it free finds all of
        // it free.
        for file in self.held.iter().rev() {
            // A lock that can't be released here is released with its last descriptor.
            let _ = file.unlock();
        }
        if self.is_leaving.is_some() {
            writers.remove(&self.folder);
            GONE.notify_all();
        }
    }
}

impl Lock {
    /// Locks a folder for a writer.
    pub(crate) fn take(top: &SystemFiles) -> Result<Self, StoreError> {
        let lock = Self::of_folder(top, File::try_lock)?;
        lock.ok_or_else(|| taken(top))?.finish(top)
    }

    /// Turns a shared lock into a writer's. If another writer came in between, this one is refused.
    pub(crate) fn for_writer(mut self, top: &SystemFiles) -> Result<Self, StoreError> {
        match top.folder().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(top)),
            Err(TryLockError::Error(e)) => drop(unlockable(top, e)?),
        }
        // Another descriptor locks the file, and the lock of this descriptor would be in its way.
        self.held.retain(|file| {
            let is_folder = Arc::ptr_eq(file, top.folder());
            is_folder || file.unlock().is_err()
        });
        self.finish(top)
    }

    /// Locks everything else that a writer locks after the folder.
    fn finish(mut self, top: &SystemFiles) -> Result<Self, StoreError> {
        let at = |e| refused(top, e);
        // An older version locks only this file. Its content, which names that process, stays.
        if is_locked(top.open_plain(LOCK, OFlags::RDONLY)).map_err(at)? {
            return Err(in_use(top));
        }
        // Where folders can't be locked, only the file keeps other writers out.
        let is_file_all = self.held.is_empty();
        if is_file_all {
            self.add_file(top)?;
        }
        for name in [LOG, DOCUMENTS] {
            match top.inside(name) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                inner => {
                    let inner = inner.map_err(at)?;
                    // Other writers are kept out by now, and no reader can see this writer yet.
                    Synced::announce(&inner)?;
                    self.add(inner.folder(), top)?;
                }
            }
        }
        if !is_file_all {
            self.add_file(top)?;
        }
        let is_leaving = Arc::new(AtomicBool::new(false));
        self.is_leaving = Some(is_leaving.clone());
        writers().insert(self.folder, is_leaving);
        Ok(self)
    }

    /// Locks the file, and writes this process's id into it.
    fn add_file(&mut self, top: &SystemFiles) -> Result<(), StoreError> {
        let at = |e| refused(top, e);
        let flags = OFlags::RDWR | OFlags::CREATE;
        let file = Arc::new(top.open_plain(LOCK, flags).map_err(at)?);
        // Where folders can't be locked, a verification holds a shared lock on the file for a long
        // time.
        let locked = if self.held.is_empty() { file.try_lock() } else { alone(&file) };
        match locked {
            Ok(()) => self.held.push(file.clone()),
            Err(TryLockError::WouldBlock) => return Err(in_use(top)),
            Err(TryLockError::Error(e)) => return Err(at(e)),
        }
        write_holder(&file).map_err(at)
    }

    /// Keeps writers out of a folder; `None` if there is a writer. Several holders can do so at
    /// once. Needs only the right to read.
    pub(crate) fn share(top: &SystemFiles) -> Result<Option<Self>, StoreError> {
        let at = |e| refused(top, e);
        let Some(mut lock) = Self::of_folder(top, File::try_lock_shared)? else { return Ok(None) };
        let file = match top.open_plain(LOCK, OFlags::RDONLY) {
            // Without the file, no older version has the journal open.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some(lock)),
            opened => Arc::new(opened.map_err(at)?),
        };
        match file.try_lock_shared() {
            Ok(()) => lock.held.push(file),
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(at(e)),
        }
        Ok(Some(lock))
    }

    /// The value that the store of this writer drops with its last handle.
    pub(crate) fn leave(&self) -> Option<Leave> {
        self.is_leaving.clone().map(Leave)
    }

    /// Locks the folder itself; `None` if another process or handle holds it and is not about to
    /// go.
    fn of_folder(
        top: &SystemFiles,
        lock: fn(&File) -> Result<(), TryLockError>,
    ) -> Result<Option<Self>, StoreError> {
        let folder = top.id();
        let mut writers = writers();
        let start = SystemClock.monotonic();
        loop {
            let held = match lock(top.folder()) {
                Ok(()) => vec![top.folder().clone()],
                Err(TryLockError::WouldBlock) => {
                    let writer = writers.get(&folder);
                    let rest =
                        LEAVE_MAX.saturating_sub(SystemClock.monotonic().saturating_since(start));
                    let is_leaving = writer.is_some_and(|it| it.load(Ordering::Acquire));
                    if !is_leaving || rest.is_zero() {
                        return Ok(None);
                    }
                    let woken = GONE.wait_timeout(writers, rest);
                    writers = woken.unwrap_or_else(PoisonError::into_inner).0;
                    continue;
                }
                Err(TryLockError::Error(e)) => unlockable(top, e)?,
            };
            return Ok(Some(Self { folder, held, is_leaving: None }));
        }
    }

    /// Locks a folder inside the journal's.
    fn add(&mut self, folder: &Arc<File>, top: &SystemFiles) -> Result<(), StoreError> {
        match alone(folder) {
            Ok(()) => self.held.push(folder.clone()),
            Err(TryLockError::WouldBlock) => return Err(in_use(top)),
            Err(TryLockError::Error(e)) => drop(unlockable(top, e)?),
        }
        Ok(())
    }
}

/// Returns whether a writer holds the journal of a folder. Needs only the right to read.
pub(crate) fn is_held(top: &SystemFiles) -> io::Result<bool> {
    // Not the journal's own folder: a writer that comes would be refused because of this look.
    let log = top.open_plain(LOG, OFlags::RDONLY | OFlags::DIRECTORY);
    let file = || top.open_plain(LOCK, OFlags::RDONLY);
    Ok(is_locked(log)? || is_locked(file())?)
}

fn is_locked(file: io::Result<File>) -> io::Result<bool> {
    let file = match file {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// Locks a file that readers lock briefly, shared, to find out whether there is a writer. Waits for
/// readers, but not for a writer.
fn alone(file: &File) -> Result<(), TryLockError> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            file.try_lock_shared()?;
            file.lock().map_err(TryLockError::Error)
        }
        locked => locked,
    }
}

/// The lock for network file systems, which lock only files that are open for writing. A folder
/// never is, so the file `lock` is the only lock there.
fn unlockable(top: &SystemFiles, error: io::Error) -> Result<Vec<Arc<File>>, StoreError> {
    use rustix::io::Errno;
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    match code {
        Some(Errno::BADF | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(Vec::new()),
        _ => Err(refused(top, error)),
    }
}

/// Writes the process's id, for people only. The lock is what counts, and it ends with the process.
fn write_holder(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

fn refused(top: &SystemFiles, error: io::Error) -> StoreError {
    let message = format!(
        "the journal can't be locked, check the permissions of the folder and of the file {LOCK} \
         in it: path={}",
        top.path().display()
    );
    StoreError::unavailable(message).with_source(error)
}

/// The source of the errors that say that the journal is open elsewhere.
#[derive(Debug)]
struct LockHeld;

impl fmt::Display for LockHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the lock is held")
    }
}

impl Error for LockHeld {}

/// Returns whether the error says that another process or handle has the journal open.
pub(crate) fn is_taken(error: &StoreError) -> bool {
    error.source().and_then(Error::source).is_some_and(<dyn Error>::is::<LockHeld>)
}

/// The error for a folder that a writer can't lock.
fn taken(top: &SystemFiles) -> StoreError {
    if top.folder().try_lock_shared().is_err() {
        return in_use(top);
    }
    // If this fails, the lock ends with the descriptor.
    let _ = top.folder().unlock();
    StoreError::unavailable(format!(
        "the journal is being verified, open it when that is done: path={}",
        top.path().display()
    ))
}

/// The error for a journal that another writer holds.
pub(crate) fn in_use(top: &SystemFiles) -> StoreError {
    let mut holder = String::new();
    // Without the id the message still tells what to do.
    let _ = top.open_plain(LOCK, OFlags::RDONLY).and_then(|mut it| it.read_to_string(&mut holder));
    let holder = if holder.trim().is_empty() { "unknown" } else { holder.trim() };
    StoreError::unavailable(format!(
        "the journal is open in another process or handle, close it there or open it with \
         mode=join or mode=read: pid={holder} path={}",
        top.path().display()
    ))
    .with_source(LockHeld)
}

#[cfg(test)]
mod tests;
