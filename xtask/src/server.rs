//! The servers that tests talk to: real ones, made for one run, gone behind it.
//!
//! A kind of server is a file in `server/` and a row in [`KINDS`]. It says which crates' tests need
//! it, and how it is started; those tests are told where it is by environment variables, and fail
//! without them.

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
    /// What it is called.
    name: &'static str,
    /// The crates whose tests need it, all of them.
    crates: &'static [&'static str],
    /// Those of whose tests some need it.
    partly: Needy,
    /// Starts what those tests need, in folders inside of this one.
    start: fn(&Folder) -> Result<Started, Failure>,
}

/// What was started: its processes end when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Started {
    /// What the tests are told: names and values of environment variables.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// Held, never looked at.
    processes: Vec<Guarded>,
}

/// A folder of one run, which goes with it.
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
        // What is left lies in the system's own folder for such things.
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
    /// Starts what the tests of these crates need.
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

    /// What the tests are told of them.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let variables = self.started.iter().flat_map(|started| &started.variables);
        variables.map(|(name, value)| (*name, value.as_str()))
    }
}

/// Whether a crate's tests need a server, all of them.
pub(crate) fn is_needed_by(name: &str) -> bool {
    KINDS.iter().any(|kind| kind.crates.contains(&name))
}

/// Tests that need a server in crates whose others need none: the crates, and how the names of the
/// tests begin.
pub(crate) type Needy = (&'static [&'static str], &'static str);

/// All such tests.
pub(crate) fn modules() -> impl Iterator<Item = Needy> {
    KINDS.iter().map(|kind| kind.partly)
}
