//! The folder of a journal: from a path to open folders.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use factum_backend::{IfAbsent, JOURNAL_MARKER, absent, check_outside};
use factum_kernel::StoreError;

use crate::{
    disk::{Files, SystemFiles, UNFINISHED},
    error,
    inbox::INBOX,
    lock::LOCK,
    recovery::{self, Founded},
    synced::SYNCED,
};

/// The file that marks a journal's folder. It is written last, so a folder with the marker has a
/// log.
pub(crate) const MARKER: &str = JOURNAL_MARKER;
pub(crate) const MARKER_TEXT: &str = "This folder is a journal of Factum, format 1.\n";
/// The folders inside the journal's.
pub(crate) const LOG: &str = "log";
pub(crate) const DOCUMENTS: &str = "documents";
/// The folder that an empty file system has at its root.
const MOUNTED: &str = "lost+found";

/// The absolute path, which errors name whatever the program's working folder is later.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    let shown = path.display();
    if path.as_os_str().is_empty() {
        let message = "a journal lives in a folder, name one such as journal:./data";
        return Err(StoreError::invalid(message));
    }
    if path.is_file() {
        let message = format!("the path is a file, a journal needs a folder: path={shown}");
        return Err(StoreError::invalid(message));
    }
    std::path::absolute(path)
        .map_err(|e| StoreError::invalid(format!("no such path: path={shown}")).with_source(e))
}

/// Returns whether a folder is a journal, or one whose making was interrupted.
pub(crate) fn is_journal(folder: &Path) -> bool {
    folder.join(MARKER).is_file() || folder.join(LOG).is_dir() && holds_only_ours(folder)
}

/// Refuses a folder in which there is no journal, if none may be made there. The files that a
/// journal has before its marker are allowed.
pub(crate) fn check_folder(folder: &Path, if_absent: IfAbsent) -> Result<(), StoreError> {
    if folder.join(MARKER).is_file() {
        return Ok(());
    }
    if if_absent == IfAbsent::Refuse {
        return Err(absent(folder));
    }
    check_outside(folder)?;
    if holds_only_ours(folder) {
        return Ok(());
    }
    Err(StoreError::invalid(format!(
        "the folder holds other files and no journal, choose an empty one: path={}",
        folder.display()
    )))
}

fn names(folder: &Path) -> Vec<String> {
    SystemFiles::open(folder).and_then(|it| it.list()).unwrap_or_default()
}

/// Returns whether a folder holds nothing but the files of a journal that has no marker yet. Other
/// programs have a folder for logs too.
fn holds_only_ours(folder: &Path) -> bool {
    let is_unfinished = |name: &str| name.ends_with(UNFINISHED);
    let is_ours = |name: &String| {
        [LOG, DOCUMENTS, LOCK, INBOX, MOUNTED].contains(&name.as_str()) || is_unfinished(name)
    };
    let is_of_log = |name: &String| {
        name.starts_with(|c: char| c.is_ascii_digit()) || name == SYNCED || is_unfinished(name)
    };
    names(folder).iter().all(is_ours) && names(&folder.join(LOG)).iter().all(is_of_log)
}

/// Makes the folders, durably: a file is not safe in a folder whose own entry is not durable.
pub(crate) fn make_folders(folder: &Path) -> Result<(), StoreError> {
    let is_new = !folder.join(DOCUMENTS).is_dir();
    let make = || -> io::Result<()> {
        for name in [LOG, DOCUMENTS] {
            fs::create_dir_all(folder.join(name))?;
        }
        for above in folder.ancestors().filter(|_| is_new) {
            match File::open(above).and_then(|above| above.sync_all()) {
                // Not every folder may be read, and not every system can sync one.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
                    ) => {}
                synced => synced?,
            }
        }
        Ok(())
    };
    make().map_err(|e| {
        let message = format!("the folder can't be made: path={}", folder.display());
        StoreError::unavailable(message).with_source(e)
    })
}

/// Opens a journal's folder.
pub(crate) fn open_folder(folder: &Path) -> Result<SystemFiles, StoreError> {
    SystemFiles::open(folder).map_err(|e| {
        let message = format!("the folder can't be opened: path={}", folder.display());
        StoreError::unavailable(message).with_source(e)
    })
}

/// Opens a folder inside a journal's.
pub(crate) fn inside(top: &SystemFiles, name: &str) -> Result<Arc<dyn Files>, StoreError> {
    let inner = top.inside(name).map_err(|e| error::disk("opening a folder", name, e))?;
    Ok(Arc::new(inner))
}

/// Returns whether there was a journal in the folder before.
pub(crate) fn founded(top: &dyn Files) -> Result<Founded, StoreError> {
    let names = recovery::list(top)?;
    let is_there = names.iter().any(|name| name == MARKER);
    Ok(if is_there { Founded::Before } else { Founded::Never })
}
