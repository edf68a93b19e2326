//! Places of new stores: what an opening does if nothing is there, and where nothing may be made.

use std::path::{Path, PathBuf};

use factum_kernel::StoreError;

/// The file that marks a folder as a journal. Every kind of store knows it, also in a program
/// without journals, because nothing may be made inside a journal's folder.
pub const JOURNAL_MARKER: &str = "factum-journal";

/// The behaviour of an opening if there is no store at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IfAbsent {
    /// The store is made.
    #[default]
    Make,
    /// The opening fails and makes nothing.
    Refuse,
}

/// The error of an opening that may not make a store in files, and finds none.
pub fn absent(path: &Path) -> StoreError {
    StoreError::invalid(format!("there is no store, check the path: path={}", path.display()))
}

/// Refuses the path of a new store that is inside the folder of another one. For stores in files,
/// before they make anything.
///
/// # Errors
/// `Invalid`, with both paths.
pub fn check_outside(path: &Path) -> Result<(), StoreError> {
    let Some(journal) = journal_around(path) else { return Ok(()) };
    Err(StoreError::invalid(format!(
        "the path is inside a journal, choose one outside, or open the journal itself: path={} \
         journal={}",
        path.display(),
        journal.display()
    )))
}

/// The journal whose folder holds this path; `None` also for the journal's own folder.
fn journal_around(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    // Only what exists can lead elsewhere by a link.
    let above = path.ancestors().skip(1).find_map(|above| above.canonicalize().ok())?;
    let is_journal = |folder: &&Path| folder.join(JOURNAL_MARKER).is_file();
    above.ancestors().find(is_journal).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_path_inside_a_journal_is_refused_however_it_leads_there() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("data");
        fs::create_dir_all(journal.join("log")).unwrap();
        fs::write(journal.join(JOURNAL_MARKER), []).unwrap();
        for inside in ["data/events.db", "data/log/x", "data/a/b/c", "data/a/../b"] {
            let refused = check_outside(&folder.path().join(inside)).unwrap_err().to_string();
            assert!(refused.contains("inside a journal"), "{inside}: {refused}");
        }
        for outside in ["data", "events.db", "other/data", "data2/x"] {
            assert!(check_outside(&folder.path().join(outside)).is_ok(), "{outside}");
        }
        #[cfg(unix)]
        {
            let link = folder.path().join("link");
            std::os::unix::fs::symlink(journal.join("log"), &link).unwrap();
            assert!(check_outside(&link.join("events.db")).is_err());
        }
    }
}
