//! Projections: read models made from the log, and how soon they show an append:
//! `cargo bench -p factum-projection --features sqlite,postgres -- project [OPTIONS]`.
//!
//! Prints one JSON object on a line. `--disk FOLDER` is the folder for the new journal and the
//! SQLite file, which are removed at the end. `--postgres URL` names a database for the read model
//! in PostgreSQL, whose table factum_bench is dropped and made again. Without its feature, a store
//! is left out.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints")]

// The path makes the module's files the ones beside it, for the benchmark and for its test.
#[path = "measurement.rs"]
mod measurement;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Cargo adds `--bench`; the output is JSON anyway, and there is one measurement.
    let given = std::env::args().skip(1);
    let options = given.filter(|it| !["--bench", "--json", "project"].contains(&it.as_str()));
    let runtime = tokio::runtime::Runtime::new().expect("threads for the clients");
    match runtime.block_on(measurement::run(&options.collect::<Vec<_>>())) {
        Ok(object) => {
            println!("{object}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("project: {error}");
            ExitCode::FAILURE
        }
    }
}
