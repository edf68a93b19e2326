//! The store that a command line names: where it is, and how large.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use factum::{App, Clock, OpenContext, StoreUrl, Stores, SystemIds};

use crate::exit::Failure;

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
        // Only stores in files know this mode; the others have servers that see to it.
        if self.scheme() != "sqlite" || self.url.option("mode").is_some() {
            return self.text.clone();
        }
        let joint = if self.text.contains('?') { '&' } else { '?' };
        format!("{}{joint}mode=read", self.text)
    }

    /// How many bytes it takes on disk; `None` where it is not on this machine's disk.
    pub(crate) fn disk_bytes(&self) -> Option<u64> {
        let path = self.url.path();
        let path = Path::new(path.strip_prefix("//").unwrap_or(path));
        if path.as_os_str().is_empty() || !path.exists() {
            return None;
        }
        let files = if path.is_dir() { entries(path) } else { beside(path) };
        Some(files.iter().map(|file| bytes(file)).sum())
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
    fn a_file_is_read_without_being_made() {
        let reading = |text: &str| Place::find(text).unwrap().for_reading();
        assert_eq!(reading("sqlite:a.db"), "sqlite:a.db?mode=read");
        assert_eq!(reading("sqlite:a.db?mode=write"), "sqlite:a.db?mode=write");
        assert_eq!(reading("sqlite:a.db?x=1"), "sqlite:a.db?x=1&mode=read");
        assert_eq!(reading("memory:"), "memory:");
    }
}
