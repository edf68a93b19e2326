//! A bank on Factum: running accounts, and layers that trace, measure, authorize, validate,
//! recognise repeats, and refuse commands under too much load; and transfers.
//!
//! `cargo run -p banking` runs in memory, `cargo run -p banking /tmp/bank` in a folder; a second
//! run continues there. With `--trace` it prints each command's duration and outcome on stderr.
#![expect(clippy::print_stdout, reason = "an example speaks by printing")]

mod account;
mod bank;

use std::{env, error::Error, io};

use factum::{SendError, sentence};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::fmt::format::FmtSpan;

use crate::{
    account::{Account, AccountCommand, AccountRejection},
    bank::{Bank, Done},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (flags, paths): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|it| it == "--trace");
    if !flags.is_empty() {
        let spans = tracing_subscriber::fmt().with_span_events(FmtSpan::CLOSE);
        spans.with_writer(io::stderr).init();
    }
    // Before the bank opens, because its layer describes the metrics to the recorder.
    let metrics = PrometheusBuilder::new().install_recorder()?;

    let bank = Bank::open(paths.first().map_or("memory:", String::as_str)).await?;
    customers_come(&bank).await?;
    money_moves(&bank).await?;
    everybody_comes_at_once(&bank).await?;
    close(bank, &metrics).await
}

/// Layers and rules refuse impossible requests.
async fn customers_come(bank: &Bank) -> Result<(), Box<dyn Error>> {
    let open = |owner: &str, email: &str| AccountCommand::Open {
        owner: owner.into(),
        email: email.into(),
    };
    say("ada opens", &bank.wish("ada", "ada", open("Ada", "ada@example.org")).await);
    say("bob opens", &bank.wish("bob", "bob", open("Bob", "bob@example.org")).await);
    say("eve opens", &bank.wish("eve", "eve", open("Eve", "ada@example.org")).await);
    say("eve tries again", &bank.wish("eve", "eve", open("Eve", "nowhere")).await);
    let deposit = AccountCommand::Deposit { cents: 50_000 };
    say("ada pays in 500.00", &bank.wish("ada", "ada", deposit).await);
    let withdraw = AccountCommand::Withdraw { cents: 900_000 };
    say("ada withdraws 9000.00", &bank.wish("ada", "ada", withdraw.clone()).await);
    say("eve withdraws it", &bank.wish("eve", "ada", withdraw).await);
    Ok(())
}

/// A repeat has no second effect, and a transfer changes both accounts or none.
async fn money_moves(bank: &Bank) -> Result<(), Box<dyn Error>> {
    for _ in 0..2 {
        let deposit = AccountCommand::Deposit { cents: 2_500 };
        say("bob's slip 17", &bank.wish_once("bob", "slip-17", "bob", deposit).await);
    }
    for (what, cents) in [("ada sends bob 100.00", 10_000), ("ada sends bob 9000.00", 900_000)] {
        match bank.transfer("ada", "bob", cents).await {
            Ok(()) => row(what, "done, on both accounts"),
            Err(SendError::Rejected(no)) => row(what, &format!("rejected: {no}")),
            Err(error) => return Err(error.into()),
        }
    }
    let ada = bank.cents("ada").await?;
    let bob = bank.cents("bob").await?;
    row("what they have", &format!("ada {ada} cents, bob {bob}"));
    Ok(())
}

/// Commands beyond the bank's limit are refused, and have no effect.
async fn everybody_comes_at_once(bank: &Bank) -> Result<(), Box<dyn Error>> {
    let before = bank.cents("bob").await?;
    let customers: Vec<_> = (0..1_000)
        .map(|_| {
            let bank = bank.clone();
            tokio::spawn(async move {
                let deposit = AccountCommand::Deposit { cents: 1 };
                bank.wish("bob", "bob", deposit).await
            })
        })
        .collect();
    let mut done = 0;
    let mut away = 0;
    for customer in customers {
        match customer.await? {
            Ok(_) => done += 1,
            Err(SendError::Layer(error)) if error.is::<tower::load_shed::error::Overloaded>() => {
                away += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    row("1000 pay in at once", &format!("{done} done, {away} turned away"));
    assert_eq!(bank.cents("bob").await? - before, done, "the accepted deposits are there, no more");
    Ok(())
}

/// Waits for the accepted commands, and prints the measurements.
async fn close(bank: Bank, metrics: &PrometheusHandle) -> Result<(), Box<dyn Error>> {
    let stats = bank.app.aggregate::<Account>().stats();
    row("accounts in memory", &format!("{}, {} loads", stats.resident, stats.loads));
    bank.app.close().await?;
    println!("\nWhat Prometheus would scrape, in part:");
    let text = metrics.render();
    let mut lines: Vec<_> =
        text.lines().filter(|it| it.starts_with("factum_commands_total{")).collect();
    lines.sort_unstable();
    lines.iter().for_each(|line| println!("  {line}"));
    Ok(())
}

/// Prints a line for the result of a request.
fn say(what: &str, done: &Done) {
    let came = match done {
        Ok(done) if done.replayed => format!("done before, version {}", done.version),
        Ok(done) if done.events.is_empty() => "nothing to do".into(),
        Ok(done) => format!("done, version {}", done.version),
        Err(SendError::Rejected(AccountRejection::InsufficientFunds { cents })) => {
            format!("rejected: only {cents} cents are there")
        }
        Err(SendError::Rejected(no)) => format!("rejected: {no}"),
        Err(SendError::Refused(no)) => format!("refused: {no}"),
        Err(error) => format!("failed: {}", sentence(error)),
    };
    row(what, &came);
}

fn row(what: &str, came: &str) {
    println!("{what:<24}{came}");
}
