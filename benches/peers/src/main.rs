//! Factum's embedded stores beside other engines: the same work, interleaved, in one run.
//!
//! Times on one machine swing by a factor of ten, so what counts are the ratios: every round
//! measures each store once, a ratio is taken within a round, and what is printed is the median
//! over the rounds. Each module under `peer` says how its engine is configured, and why.

mod arguments;
mod load;

mod frame;
mod group;
mod peer;

mod clients;
mod subject;

mod ratio;
mod reading;
mod report;
mod run;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    arguments::{Arguments, Suite},
    run::Run,
};

fn main() -> ExitCode {
    match measure(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: Arguments) -> Result<(), String> {
    if let Some(Suite::Postgres { .. }) = arguments.suite {
        return Err("the frameworks on PostgreSQL are not measured here yet: \
             leave `postgres` away to measure the embedded engines"
            .into());
    }
    Run::new(arguments)?.measure();
    Ok(())
}
