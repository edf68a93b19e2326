//! Factum's stores beside other engines and frameworks: the same work, interleaved, in one run.
//!
//! Times on one machine vary by a factor of ten, so only the ratios count. Every round measures
//! each store once, a ratio is taken within a round, and the report shows the median over the
//! rounds. Each module under `peer` explains how its engine is configured, and each under
//! `postgres::framework` how its framework is.

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

mod postgres;

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
    match &arguments.suite {
        None => Run::new(arguments)?.measure(),
        Some(Suite::Postgres(options)) => postgres::measure(&arguments, options)?,
        Some(Suite::PostgresClients(job)) => postgres::serve(job),
    }
    Ok(())
}
