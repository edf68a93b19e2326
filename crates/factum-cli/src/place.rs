//! The store that a command line names: its location and its size.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

#[cfg(feature = "postgres")]
use factum::postgres::PostgresOptions;
use factum::{
    App,
    store::{Clock, IfAbsent, OpenContext, StoreUrl, Stores, SystemClock, SystemIds},
};

use crate::{
    effect::Effect,
    exit::{Exit, Failure},
};

/// A store that may or may not exist.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    url: StoreUrl,
}

impl Place {
    /// Resolves a URL or a path.
    pub(crate) fn find(url_or_path: &str) -> Result<Self, Failure> {
        Ok(Self { url: App::stores().resolve(url_or_path)? })
    }

    /// The kind of store.
    pub(crate) fn scheme(&self) -> &str {
        self.url.scheme()
    }

    /// Opens the store as a command with this effect may: only a command that makes stores creates
    /// one, and a command that reads may run while another process writes.
    pub(crate) async fn open(
        &self,
        effect: Effect,
        clock: Arc<dyn Clock>,
    ) -> Result<Stores, Failure> {
        let makes = effect == Effect::Makes;
        let if_absent = if makes { IfAbsent::Make } else { IfAbsent::Refuse };
        let context = OpenContext::new(clock, Arc::new(SystemIds)).with_if_absent(if_absent);
        Ok(App::stores().open_url(&self.url_for(effect), &context).await?)
    }

    /// Opens an application on the store, as [`open`](Self::open) does.
    pub(crate) async fn open_app(&self, effect: Effect) -> Result<App, Failure> {
        let stores = self.open(effect, Arc::new(SystemClock)).await?;
        Ok(App::builder().open_stores(stores).await?)
    }

    /// The URL with the mode for this effect. A command that changes something follows the mode
    /// that the caller has chosen; one that reads never opens a store for writing.
    fn url_for(&self, effect: Effect) -> StoreUrl {
        let url = self.url.clone();
        match (effect, self.scheme(), url.option("mode")) {
            (Effect::Reads, "memory", _) => url,
            // The store refuses a mode that it does not know.
            (Effect::Reads, _, None | Some("write" | "existing" | "join")) => {
                url.with_option("mode", "read")
            }
            // In the other stores every process writes for itself.
            (Effect::Changes, "journal", None) => url.with_option("mode", "join"),
            _ => url,
        }
    }

    /// The options of a PostgreSQL store; `None` for another store.
    #[cfg(feature = "postgres")]
    pub(crate) fn postgres(&self) -> Result<Option<PostgresOptions>, Failure> {
        match self.scheme() {
            "postgres" | "postgresql" => Ok(Some(PostgresOptions::of_url(&self.url)?)),
            _ => Ok(None),
        }
    }

    fn path(&self) -> &Path {
        let path = self.url.path();
        Path::new(path.strip_prefix("//").unwrap_or(path))
    }

    /// The bytes that the store takes on disk; `None` if it is not on this machine's disk.
    pub(crate) fn disk_bytes(&self) -> Option<u64> {
        let path = self.path();
        if path.as_os_str().is_empty() || !path.exists() {
            return None;
        }
        let files = if path.is_dir() { entries(path) } else { beside(path) };
        Some(files.iter().map(|file| bytes(file)).sum())
    }
}

/// The folder of the journal that a URL or a path names. Refuses every other store.
#[cfg(feature = "journal")]
pub(crate) fn journal_at(url_or_path: &str) -> Result<(Place, PathBuf), Failure> {
    // A damaged journal may lack the file that marks it as one.
    let folder = Path::new(url_or_path);
    if StoreUrl::parse(url_or_path).is_none() && folder.join("log").is_dir() {
        return Ok((Place { url: StoreUrl::of_path("journal", folder) }, folder.into()));
    }
    let place = Place::find(url_or_path)?;
    match place.scheme() {
        "journal" => {
            let folder = place.path().into();
            Ok((place, folder))
        }
        "sqlite" if place.path().is_file() => {
            let text = format!(
                "this command is for journals so far; check a SQLite file with sqlite3 and its \
                 PRAGMA integrity_check, and the checksum of each event with factum read: \
                 store={place}"
            );
            Err(Failure::new(Exit::Usage, text))
        }
        _ => {
            let text = format!("there is no journal, check the path: store={place}");
            Err(Failure::new(Exit::Usage, text))
        }
    }
}

impl fmt::Display for Place {
    /// The store's URL, or the path if that contains a `?`; `--store` accepts both. Left out are
    /// the user, the password, and the options that do not tell which store it is, such as `mode`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.url.path().contains('?') {
            // In a URL the path would end at this character.
            return f.write_str(self.url.path());
        }
        self.url.fmt(f)?;
        #[cfg(feature = "postgres")]
        if let Ok(Some(options)) = self.postgres() {
            let mut joint = '?';
            for name in ["host", "hostaddr", "port", "dbname"] {
                if let Some(value) = self.url.option(name) {
                    write!(f, "{joint}{name}={}", self.url.shown_option(value))?;
                    joint = '&';
                }
            }
            let schema = options.schema.to_string();
            write!(f, "{joint}schema={}", self.url.shown_option(&schema))?;
        }
        Ok(())
    }
}

/// The file, and the files beside it whose names begin with its name, such as `-wal`.
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
        let place = |path: &Path| Place { url: StoreUrl::of_path("sqlite", path) };
        assert_eq!(place(&file).disk_bytes(), Some(15));
        assert_eq!(place(folder.path()).disk_bytes(), Some(115));
        assert_eq!(place(&folder.path().join("none")).disk_bytes(), None);
    }

    #[test]
    fn a_store_is_opened_in_the_mode_that_the_commands_effect_needs() {
        let check = |text: &str, effect: Effect, expected: Option<&str>| {
            let url = Place::find(text).unwrap().url_for(effect);
            assert_eq!(url.option("mode"), expected, "{text} {effect:?}");
        };
        check("sqlite:a.db", Effect::Reads, Some("read"));
        check("journal:./data", Effect::Reads, Some("read"));
        check("./why?data", Effect::Reads, Some("read"));
        check("sqlite:a.db?mode=write", Effect::Reads, Some("read"));
        check("sqlite:a.db?mode=existing", Effect::Reads, Some("read"));
        check("journal:./data?mode=join", Effect::Reads, Some("read"));
        check("sqlite:a.db?mode=wirte", Effect::Reads, Some("wirte"));
        check("sqlite:a.db?x=1", Effect::Reads, Some("read"));
        #[cfg(feature = "postgres")]
        check("postgres://db/bank", Effect::Reads, Some("read"));
        check("memory:", Effect::Reads, None);
        check("journal:./data", Effect::Changes, Some("join"));
        check("./why?data", Effect::Changes, Some("join"));
        check("journal:./data?mode=write", Effect::Changes, Some("write"));
        check("sqlite:a.db", Effect::Changes, None);
        check("journal:./data", Effect::Uses, None);
        check("journal:./data", Effect::Makes, None);
    }

    #[test]
    fn a_name_leads_to_the_same_store_and_holds_no_secret() {
        let check = |given: &str, name: &str| {
            assert_eq!(Place::find(given).unwrap().to_string(), name, "{given}");
        };
        check("./data", "journal:./data");
        check("./why?mode=read", "./why?mode=read");
        check("journal:./data?mode=read", "journal:./data");
        check("memory:", "memory:");
        #[cfg(feature = "postgres")]
        for (given, name) in [
            ("postgres://db/bank", "postgres://db/bank?schema=factum"),
            ("postgres://ada:s3c@db:1/bank?schema=a&mode=read", "postgres://db:1/bank?schema=a"),
            ("postgresql://ada@db/bank?schema=a", "postgresql://db/bank?schema=a"),
            (
                "postgres:///bank?user=ada&host=/run/pg&schema=a",
                "postgres:///bank?host=/run/pg&schema=a",
            ),
            (
                "postgres://db/bank?password=s3c&host=s3c&schema=a",
                "postgres://db/bank?host=***&schema=***",
            ),
            ("postgres://ada:s3c?r3t@db/bank", "postgres:***"),
        ] {
            check(given, name);
        }
    }
}
