//! The store that a command line names: where it is, and how large.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use factum::{App, Clock, OpenContext, StoreUrl, Stores, SystemIds};

use crate::exit::{Exit, Failure};

/// The file that makes a folder a journal.
const JOURNAL_MARKER: &str = "factum-journal";

/// A store that may or may not be there yet.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    text: String,
    url: StoreUrl,
}

impl Place {
    /// What a URL or a path stands for.
    pub(crate) fn find(url_or_path: &str) -> Result<Self, Failure> {
        let url = App::stores().resolve(url_or_path)?;
        let text = match StoreUrl::parse(url_or_path) {
            Some(_) => url_or_path.to_owned(),
            None => format!("{}:{}", url.scheme(), url.path()),
        };
        Ok(Self { text, url })
    }

    /// The kind of store.
    pub(crate) fn scheme(&self) -> &str {
        self.url.scheme()
    }

    /// Opens it, and makes it if it is not there.
    pub(crate) async fn open(&self, clock: Arc<dyn Clock>) -> Result<Stores, Failure> {
        let context = OpenContext { clock, ids: Arc::new(SystemIds) };
        Ok(App::stores().open(&self.text, &context).await?)
    }

    /// The URL to read it by: beside whoever writes, and without making it.
    pub(crate) fn for_reading(&self) -> String {
        // Only stores in files know this mode.
        if self.is_in_files() { self.in_mode("read") } else { self.text.clone() }
    }

    /// The URL to change it by, also while another process has it open.
    pub(crate) fn for_changing(&self) -> String {
        // Of the others, each process writes for itself.
        if self.scheme() == "journal" { self.in_mode("join") } else { self.text.clone() }
    }

    fn in_mode(&self, mode: &str) -> String {
        if self.url.option("mode").is_some() {
            return self.text.clone();
        }
        let joint = if self.text.contains('?') { '&' } else { '?' };
        format!("{}{joint}mode={mode}", self.text)
    }

    /// Refuses a store in files of which there are none.
    pub(crate) fn check_is_there(&self) -> Result<(), Failure> {
        let is_there = match self.scheme() {
            "sqlite" => self.path().is_file(),
            "journal" => self.path().join(JOURNAL_MARKER).is_file(),
            _ => true,
        };
        if is_there {
            return Ok(());
        }
        Err(Failure::new(Exit::Usage, format!("there is no store, check the path: store={self}")))
    }

    /// Whether this machine's disk holds it; other stores have servers, or are gone at the end.
    fn is_in_files(&self) -> bool {
        ["sqlite", "journal"].contains(&self.scheme())
    }

    fn path(&self) -> &Path {
        let path = self.url.path();
        Path::new(path.strip_prefix("//").unwrap_or(path))
    }

    /// How many bytes it takes on disk; `None` where it is not on this machine's disk.
    pub(crate) fn disk_bytes(&self) -> Option<u64> {
        let path = self.path();
        if path.as_os_str().is_empty() || !path.exists() {
            return None;
        }
        let files = if path.is_dir() { entries(path) } else { beside(path) };
        Some(files.iter().map(|file| bytes(file)).sum())
    }
}

/// A URL or a path as it may be printed: without a password.
#[cfg(any(feature = "journal", feature = "postgres"))]
pub(crate) fn shown(url_or_path: &str) -> String {
    match (StoreUrl::parse(url_or_path), App::stores().resolve(url_or_path)) {
        (Some(url), _) => url.to_string(),
        (None, Ok(_)) => url_or_path.into(),
        (None, Err(_)) => "***".into(),
    }
}

/// The folder of the journal that a URL or a path names. What else is there is refused.
#[cfg(feature = "journal")]
pub(crate) fn journal_at(url_or_path: &str) -> Result<PathBuf, Failure> {
    // What is left of a damaged journal may lack the file that it is known by.
    if StoreUrl::parse(url_or_path).is_none() && Path::new(url_or_path).join("log").is_dir() {
        return Ok(url_or_path.into());
    }
    let place = Place::find(url_or_path)?;
    match place.scheme() {
        "journal" => Ok(place.path().into()),
        "sqlite" if place.path().is_file() => {
            let text = format!(
                "this is for journals so far; of a SQLite store, sqlite3 and its PRAGMA \
                 integrity_check look at the file, and factum read at each event's checksum: \
                 store={place}"
            );
            Err(Failure::new(Exit::Usage, text))
        }
        _ => {
            let text = format!("there is no journal, check the path: path={}", shown(url_or_path));
            Err(Failure::new(Exit::Usage, text))
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// The file, and those that a store keeps beside it under the same name and more, such as `-wal`.
fn beside(file: &Path) -> Vec<PathBuf> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let Some(name) = file.file_name().map(|name| name.to_string_lossy().into_owned()) else {
        return Vec::new();
    };
    let suffix = format!("{name}-");
    let is_of_it = |path: &PathBuf| {
        let found = path.file_name().unwrap_or_default().to_string_lossy();
        found == name || found.starts_with(&suffix)
    };
    entries(folder).into_iter().filter(is_of_it).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn bytes(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => entries(path).iter().map(|file| bytes(file)).sum(),
        Ok(found) if found.is_file() => found.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_in_a_file_counts_what_lies_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("events.db");
        for (name, len) in [("events.db", 10), ("events.db-wal", 5), ("other.db", 100)] {
            fs::write(folder.path().join(name), vec![0; len]).unwrap();
        }
        let place =
            |path: &Path| Place { text: String::new(), url: StoreUrl::of_path("sqlite", path) };
        assert_eq!(place(&file).disk_bytes(), Some(15));
        assert_eq!(place(folder.path()).disk_bytes(), Some(115));
        assert_eq!(place(&folder.path().join("none")).disk_bytes(), None);
    }

    #[test]
    fn an_empty_file_is_there_and_a_folder_without_a_journal_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let is_there = |scheme: &str, path: &Path| {
            let place = Place { text: String::new(), url: StoreUrl::of_path(scheme, path) };
            place.check_is_there().is_ok()
        };
        let file = folder.path().join("events.db");
        assert!(!is_there("sqlite", &file) && !is_there("journal", folder.path()));
        fs::write(&file, []).unwrap();
        assert!(is_there("sqlite", &file) && !is_there("journal", folder.path()));
        fs::write(folder.path().join(JOURNAL_MARKER), []).unwrap();
        assert!(is_there("journal", folder.path()));
        assert!(is_there("memory", Path::new("")));
    }

    #[test]
    fn a_file_is_read_without_being_made() {
        let reading = |text: &str| Place::find(text).unwrap().for_reading();
        assert_eq!(reading("sqlite:a.db"), "sqlite:a.db?mode=read");
        assert_eq!(reading("journal:./data"), "journal:./data?mode=read");
        assert_eq!(reading("sqlite:a.db?mode=write"), "sqlite:a.db?mode=write");
        assert_eq!(reading("sqlite:a.db?x=1"), "sqlite:a.db?x=1&mode=read");
        assert_eq!(reading("memory:"), "memory:");
    }

    #[test]
    fn only_a_journal_is_changed_through_the_process_that_has_it_open() {
        let changing = |text: &str| Place::find(text).unwrap().for_changing();
        assert_eq!(changing("journal:./data"), "journal:./data?mode=join");
        assert_eq!(changing("journal:./data?mode=write"), "journal:./data?mode=write");
        assert_eq!(changing("sqlite:a.db"), "sqlite:a.db");
    }
}
