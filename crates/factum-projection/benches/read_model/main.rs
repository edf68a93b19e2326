//! Projections: read models made from the log, and how soon they show an append:
//! `cargo bench -p factum-projection --features sqlite,postgres -- project [OPTIONS]`.
//!
//! Prints one JSON object on a line. `--disk FOLDER` says where the new journal and the SQLite file
//! are, which are removed at the end; `--postgres URL` names a database for the read model in
//! PostgreSQL, whose table factum_bench is made again. Without a feature, its store is left out.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints")]

// By its path, so that its parts are the files beside it, for the benchmark and for its test.
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
