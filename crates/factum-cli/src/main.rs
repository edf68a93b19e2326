//! The command line of Factum: a demonstration, a reader, benchmarks, and commands for stores and
//! the applications that use them.

mod args;
mod bench;
mod consumers;
mod demo;
mod effect;
mod exit;
mod interrupt;
#[cfg(any(feature = "journal", feature = "postgres"))]
mod lineage;
mod number;
mod output;
mod panic;
mod place;
mod progress;
mod random;
mod read;
mod rewind;
#[cfg(feature = "postgres")]
mod schema;
mod stats;
mod stopwatch;
#[cfg(feature = "journal")]
mod verify;

use std::process::ExitCode;

use args::{Args, Command, ConsumersCommand};
use exit::{Exit, Failure};
use output::Output;

fn main() -> ExitCode {
    panic::record();
    let ended = std::panic::catch_unwind(|| Args::read().and_then(|args| start(&args)));
    let ended = ended.unwrap_or_else(|_| Err(Failure::internal("a part of the program panicked")));
    let exit = match ended {
        Ok(()) | Err(Failure::PipeClosed) => Exit::Success,
        Err(Failure::Stopped { exit, text }) => {
            output::complain(&panic::explain(exit, text));
            exit
        }
    };
    ExitCode::from(exit as u8)
}

fn start(args: &Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.map_err(|e| Failure::internal(format!("the program can't start threads: {e}")))?;
    let ended = runtime.block_on(run(args));
    // Tasks that still run, such as a read that waits for events, have no caller any more.
    runtime.shutdown_background();
    ended
}

async fn run(args: &Args) -> Result<(), Failure> {
    let mut out = Output::new(args.quiet);
    let effect = args.command.effect();
    match &args.command {
        Command::Demo(demo) => demo::run(demo, effect, &mut out).await?,
        Command::Read(read) => read::run(read, effect, &mut out).await?,
        Command::Stats(stats) => stats::run(stats, effect, &mut out).await?,
        Command::Consumers(ConsumersCommand::List(list)) => {
            consumers::run(list, effect, &mut out).await?;
        }
        Command::Consumers(ConsumersCommand::Rewind(to)) => {
            rewind::run(to, effect, &mut out).await?;
        }
        Command::DeadLetters(letters) => {
            consumers::run_letters(letters, effect, &mut out).await?;
        }
        Command::Bench(bench) => bench::run(bench, effect, &mut out).await?,
        #[cfg(feature = "journal")]
        Command::Verify(verify) => verify::run(verify, &mut out).await?,
        #[cfg(any(feature = "journal", feature = "postgres"))]
        Command::Lineage(lineage) => lineage::run(lineage, &mut out).await?,
        #[cfg(feature = "postgres")]
        Command::Schema(schema) => schema::run(schema, &mut out).await?,
        Command::Completions { shell } => out.write(&args::completions(*shell))?,
    }
    out.flush()
}
