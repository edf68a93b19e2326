//! The servers that tests talk to: real ones, started for one run and stopped after it.
//!
//! A kind of server is a file in `server/` and a row in [`KINDS`]. It names the crates whose tests
//! need it, and starts it. Environment variables tell those tests its address; without them they
//! fail.

mod install;
mod postgres;
mod process;

use std::{env, fs, path::PathBuf};

use crate::failure::Failure;

use self::process::Guarded;

/// Every kind.
const KINDS: &[Kind] = &[postgres::KIND];

/// A kind of server.
pub(crate) struct Kind {
    /// Its name.
    name: &'static str,
    /// The crates whose tests all need it.
    crates: &'static [&'static str],
    /// The crates some of whose tests need it.
    partly: Needy,
    /// Starts the servers that those tests need, in folders inside this one.
    start: fn(&Folder) -> Result<Started, Failure>,
}

/// The started servers. The drop ends their processes.
#[derive(Debug, Default)]
pub(crate) struct Started {
    /// The names and values of environment variables for the tests.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// Held only for its drop.
    processes: Vec<Guarded>,
}

/// A folder of one run, which is removed on drop.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        let path = env::temp_dir().join(format!("factum-servers-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // If this fails, the rest stays in the system's folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The servers of one run.
#[derive(Debug)]
pub(crate) struct Servers {
    started: Vec<Started>,
    _folder: Option<Folder>,
}

impl Servers {
    /// Starts the servers that the tests of these crates need.
    pub(crate) fn start<'p>(
        crates: impl Iterator<Item = &'p str> + Clone,
    ) -> Result<Self, Failure> {
        let is_needed = |kind: &&Kind| {
            let mut crates = crates.clone();
            crates.any(|name| kind.crates.contains(&name) || kind.partly.0.contains(&name))
        };
        let needed: Vec<_> = KINDS.iter().filter(is_needed).collect();
        if needed.is_empty() {
            return Ok(Self { started: Vec::new(), _folder: None });
        }
        let folder = Folder::new()?;
        let mut started = Vec::new();
        for kind in needed {
            println!("starting {}", kind.name);
            started.push((kind.start)(&folder)?);
        }
        Ok(Self { started, _folder: Some(folder) })
    }

    /// The environment variables for the tests.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let variables = self.started.iter().flat_map(|started| &started.variables);
        variables.map(|(name, value)| (*name, value.as_str()))
    }
}

/// Returns whether all tests of a crate need a server.
pub(crate) fn is_needed_by(name: &str) -> bool {
    KINDS.iter().any(|kind| kind.crates.contains(&name))
}

/// Tests that need a server in crates whose other tests need none: the crates, and the beginnings
/// of the tests' names.
pub(crate) type Needy = (&'static [&'static str], &'static str);

/// All such tests.
pub(crate) fn modules() -> impl Iterator<Item = Needy> {
    KINDS.iter().map(|kind| kind.partly)
}
