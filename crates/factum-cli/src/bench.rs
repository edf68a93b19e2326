//! `factum bench`: benchmarks of a store, on the kernel's traits.

mod append;
mod latency;
mod load;
mod read;
mod report;

use factum::store::Durability;

use crate::{args::BenchCommand, effect::Effect, exit::Failure, output::Output};

/// Runs the benchmark of the command line.
pub(crate) async fn run(
    command: &BenchCommand,
    effect: Effect,
    out: &mut Output,
) -> Result<(), Failure> {
    match command {
        BenchCommand::Append(args) => append::run(args, effect, out).await,
        BenchCommand::Read(args) => read::run(args, effect, out).await,
    }
}

/// The durability that a store claims, as JSON names it.
fn durability(claimed: Durability) -> &'static str {
    match claimed {
        Durability::Volatile => "volatile",
        Durability::ProcessCrash => "process-crash",
        Durability::PowerLoss => "power-loss",
        Durability::Replicated => "replicated",
    }
}

/// The durability that a store claims, for people.
fn sync_policy(claimed: Durability) -> &'static str {
    match claimed {
        Durability::Volatile => "volatile: gone with the process",
        Durability::ProcessCrash => "answered appends survive the process",
        Durability::PowerLoss => "answered appends are synced and survive a power cut",
        Durability::Replicated => "answered appends survive the loss of a machine",
    }
}
