//! `factum demo`: a month in the life of a bank, and a check of every cent of it.

mod audit;
mod bank;
mod check;
mod clock;
mod conflict;
mod customer;
mod ledger;
mod plan;
mod read_model;
mod report;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use factum::{
    runtime::EntityStats,
    store::{Clock, Durability, SystemClock},
};
use tokio::task::JoinSet;

use crate::{
    args::DemoArgs,
    demo::{
        bank::{Bank, Found, Tally},
        plan::{Brief, Month, Order},
        read_model::ReadModels,
        report::Report,
    },
    effect::Effect,
    exit::{Exit, Failure},
    interrupt::Interrupt,
    number::counted,
    output::{self, Notes, Output},
    place::Place,
    progress::Progress,
    stopwatch::Stopwatch,
};

/// The number of writers that race for the accounts.
const WRITERS: usize = 16;

/// Simulates the month, checks the log, and prints the report.
pub(crate) async fn run(args: &DemoArgs, effect: Effect, out: &mut Output) -> Result<(), Failure> {
    let place = Place::find(&args.store)?;
    let notes = if args.json { Notes::None } else { out.notes() };
    let bank = Bank::open(&place, effect).await?;
    let work = Work { bank: bank.clone(), interrupt: Interrupt::listen(), notes };
    let ended = live_and_audit(&work, args, &place).await;
    // Close after a failure too: accepted work finishes, and the store is left in order.
    bank.close().await?;
    let mut report = ended?;
    report.measure(&place);
    let printed = if args.json { report.print_json(out) } else { report.print(out) };
    let printed = printed.and_then(|()| out.flush());
    // A failed check matters more than an output that was closed.
    let failed = report.failed_checks();
    if failed.is_empty() {
        return printed;
    }
    let text = format!("these checks failed: {}; stop, and examine the log", failed.join(", "));
    Err(Failure::new(Exit::CheckFailed, text))
}

/// The bank, the interrupt, and the kind of notes.
#[derive(Debug, Clone)]
struct Work {
    bank: Bank,
    interrupt: Interrupt,
    notes: Notes,
}

/// The result of the month in this run.
#[derive(Debug, Default)]
struct Lived {
    tally: Tally,
    conflicts: u64,
    running: EntityStats,
    elapsed: Duration,
}

async fn live_and_audit(work: &Work, args: &DemoArgs, place: &Place) -> Result<Report, Failure> {
    let models = ReadModels::start(&work.bank).await?;
    let ended = live_beside(work, args, place, &models).await;
    models.close().await;
    ended
}

async fn live_beside(
    work: &Work,
    args: &DemoArgs,
    place: &Place,
    models: &ReadModels,
) -> Result<Report, Failure> {
    let lived = live(work, args, place).await?;
    let audited = audit::run(work, models).await?;
    let story = audit::story(&work.bank, &audited.ledger).await?;
    Ok(Report::new(args, place, lived, audited, story))
}

async fn live(work: &Work, args: &DemoArgs, place: &Place) -> Result<Lived, Failure> {
    let found = work.bank.look().await?;
    let count = counted(args.commands, "command");
    let bank = match found.known.len() as u64 {
        0 => "a new bank".to_owned(),
        known => format!("a bank with {}", counted(known, "account")),
    };
    output::note(work.notes, format_args!("{count} on {bank}, store={place}"));
    live_on(work, args, found).await
}

/// Simulates the month of a bank that was found in this state.
async fn live_on(work: &Work, args: &DemoArgs, found: Found) -> Result<Lived, Failure> {
    let month = Month::new(Brief {
        seed: args.seed,
        run: found.head.value(),
        known: found.known,
        next_number: found.next_number,
        accounts: args.accounts,
        commands: args.commands,
        start: found.start,
        // The month ends now, not later: the times in the log must not be ahead of the clock of an
        // application that opens it afterwards.
        end: SystemClock.now().max(found.start),
    });
    let progress = Arc::new(Progress::start(work.notes, "demo", "command", args.commands));
    let begun = Stopwatch::start();
    let mut tally = Tally::default();
    for orders in month {
        tally.merge(carry_out(work, orders, &progress).await?);
    }
    progress.finish();
    // Commands that wait for one account give up together, after a single conflict.
    let conflicts = work.bank.conflicts().saturating_sub(tally.given_up);
    let running = work.bank.accounts.stats();
    Ok(Lived { tally, conflicts, running, elapsed: begun.elapsed() })
}

/// Executes the orders of one opening of the bank, by writers that race for them.
async fn carry_out(
    work: &Work,
    orders: Vec<Order>,
    progress: &Arc<Progress>,
) -> Result<Tally, Failure> {
    let orders = Arc::new(Mutex::new(orders.into_iter()));
    let writer = |_| write(work.clone(), orders.clone(), progress.clone());
    let mut writers: JoinSet<_> = (0..WRITERS).map(writer).collect();
    let mut all = Tally::default();
    let mut ended = Ok(());
    while let Some(writer) = writers.join_next().await {
        match writer.map_err(Failure::from).flatten() {
            Ok(tally) => all.merge(tally),
            Err(failure) => ended = ended.and(Err(failure)),
        }
    }
    if ended.is_err() {
        progress.finish();
    }
    ended.map(|()| all)
}

async fn write(
    work: Work,
    orders: Arc<Mutex<std::vec::IntoIter<Order>>>,
    progress: Arc<Progress>,
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    loop {
        // Check between two commands, so that a command that has begun is finished.
        work.check_interrupt()?;
        let next = orders.lock().expect("no holder of the lock panics").next();
        let Some(order) = next else { return Ok(tally) };
        work.bank.carry_out(order, &mut tally).await?;
        progress.add(1);
    }
}

impl Work {
    fn check_interrupt(&self) -> Result<(), Failure> {
        let durability = self.bank.app.kernel().events().guarantees().durability;
        self.interrupt.check(match durability {
            Durability::Volatile => "interrupted; a store in memory keeps nothing",
            _ => "interrupted; what was done is stored, run it again to go on",
        })
    }
}

#[cfg(test)]
mod tests;
