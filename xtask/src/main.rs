//! The chores of this workspace: `cargo xtask help`.
//!
//! It needs only cargo itself, so that a fresh machine can run it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line speaks by printing")]

mod command;
mod failure;

mod cargo;
mod lint;
mod server;
mod suite;
mod table;
mod test;

use std::{env, process::ExitCode};

use command::{Command, HELP};
use failure::{Failure, Verdict};

fn main() -> ExitCode {
    match run() {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}

fn run() -> Result<Verdict, Failure> {
    match Command::parse(env::args().skip(1))? {
        Command::Help => {
            print!("{HELP}");
            Ok(Verdict::Passed)
        }
        Command::Test(options) => test::run(&options),
        Command::Lint => lint::run(),
    }
}
