//! The ways in which a chore ends, and the exit code of each.

use std::{io, process::ExitCode};

/// The verdict of a chore that could be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
}

/// The reason why a chore could not be done. The text is one sentence with the remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no such command, `cargo xtask help` lists them: command={0}")]
    UnknownCommand(String),
    #[error("no such option here: `cargo xtask help` lists them: option={0}")]
    UnknownOption(String),
    #[error("`--only` needs the name of a crate: `--only factum-kernel`, for instance")]
    CrateMissing,
    #[error("no such crate in this workspace: choose one of {known}: crate={name}")]
    UnknownCrate { name: String, known: String },
    #[error("a server for the tests can't be started: {0}")]
    Server(String),
    #[error("the workspace does not build: correct what cargo says above")]
    Build,
    #[error("cargo could not be run: see that Rust is installed (https://rustup.rs): {0}")]
    Cargo(#[from] io::Error),
    #[error("cargo's answer could not be read: see that it is the version in Cargo.toml: {0}")]
    Answer(#[from] serde_json::Error),
}

impl Failure {
    /// 2: the command line is wrong. 3: the chore could not be done. (1: it was done and found
    /// faults.)
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::UnknownCommand(_)
            | Self::UnknownOption(_)
            | Self::CrateMissing
            | Self::UnknownCrate { .. } => ExitCode::from(2),
            Self::Build | Self::Server(_) | Self::Cargo(_) | Self::Answer(_) => ExitCode::from(3),
        }
    }
}
