//! The lock of a folder: one writer at a time, and a name for whoever holds it.

use std::{
    error::Error,
    fmt,
    fs::{File, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use factum_core::StoreError;

/// The file that is locked. It stays when the lock goes; only the lock itself says anything.
pub(crate) const LOCK: &str = "lock";

/// Held as long as a journal is open for writing.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a folder.
    pub(crate) fn take(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(LOCK);
        let at = |e| {
            let message = format!("the journal can't be locked: path={}", path.display());
            StoreError::unavailable(message).with_source(e)
        };
        let mut options = File::options();
        let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(at)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(e)) => return Err(at(e)),
            Err(TryLockError::WouldBlock) => return Err(taken(&mut file, folder)),
        }
        // For people only: what counts is the lock, which goes with the process.
        let written = file.set_len(0).and_then(|()| {
            file.seek(SeekFrom::Start(0))?;
            writeln!(file, "{}", std::process::id())
        });
        written.map_err(at)?;
        Ok(Self { _file: file })
    }
}

/// The source of the error that says so.
#[derive(Debug)]
struct Taken;

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the lock is held")
    }
}

impl Error for Taken {}

/// Whether the error says that another process or handle has the journal open.
pub(crate) fn is_taken(error: &StoreError) -> bool {
    error.source().and_then(Error::source).is_some_and(<dyn Error>::is::<Taken>)
}

fn taken(file: &mut File, folder: &Path) -> StoreError {
    let mut holder = String::new();
    // Without a number the message still says what to do.
    let _ = file.read_to_string(&mut holder);
    let holder = if holder.trim().is_empty() { "unknown" } else { holder.trim() };
    StoreError::unavailable(format!(
        "the journal is open in another process or handle, close it there or open it with \
         mode=join or mode=read: pid={holder} path={}",
        folder.display()
    ))
    .with_source(Taken)
}
