//! Entities against the store that they run on:
//! `cargo bench -p factum-runtime -- [entities|recover|idle] [OPTIONS]`; without a name all three.
//!
//! Each prints one JSON object on a line. `entities` and `recover` take `--disk FOLDER` for a new
//! journal there, which is removed at the end, or `--store URL` for an empty store.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints")]

// By its path, so that its parts are the files beside it, for the benchmark and for its test.
#[path = "measurement.rs"]
mod measurement;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Cargo adds `--bench`; the output is JSON anyway.
    let given = std::env::args().skip(1).filter(|it| it != "--bench" && it != "--json");
    let words: Vec<_> = given.collect();
    let (names, options) = match words.split_first() {
        Some((name, options)) if !name.starts_with("--") => (vec![name.as_str()], options),
        _ => (measurement::NAMES.to_vec(), &words[..]),
    };
    let runtime = tokio::runtime::Runtime::new().expect("threads for the clients");
    for name in names {
        match runtime.block_on(measurement::run(name, options)) {
            Ok(object) => println!("{object}"),
            Err(error) => {
                eprintln!("{name}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
