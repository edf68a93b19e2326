//! The measurements by their names. The names in the JSON objects are the same in all benchmarks.

mod entities;
mod ground;
mod idle;
mod recover;

use std::{error::Error, time::Duration};

use factum_kernel::{Clock, Monotonic, SystemClock};
use factum_testing::Arguments;
use serde_json::Value;

/// The reason why there is no measurement, in one line.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// The measurements, in the order in which all of them are made.
pub(crate) const NAMES: [&str; 3] = ["entities", "recover", "idle"];

/// Measures by a name, with options such as `--rounds 2`.
pub(crate) async fn run(name: &str, options: &[String]) -> Result<Value, Failure> {
    let arguments = Arguments::read(options)?;
    match name {
        "entities" => entities::run(arguments).await,
        "recover" => recover::run(arguments).await,
        "idle" => idle::run(arguments).await,
        _ => Err(format!("there is no such benchmark, name one of {}", NAMES.join(", ")).into()),
    }
}

fn now() -> Monotonic {
    SystemClock.monotonic()
}

fn since(begun: Monotonic) -> Duration {
    now().saturating_since(begun)
}

/// The median. There is at least one value.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
