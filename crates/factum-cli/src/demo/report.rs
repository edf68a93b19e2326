//! The report of the demonstration, for people and for programs.

use std::collections::BTreeMap;

use factum::runtime::EntityStats;
use serde::Serialize;

use crate::{
    args::DemoArgs,
    demo::{
        Lived,
        audit::{Audited, Entry, Story},
        bank::Tally,
        check::{self, Check, Outcome},
        ledger::Ledger,
        read_model::{Row, Seen},
    },
    exit::Failure,
    number::{self, counted, grouped, minute, money},
    output::{Output, Paint},
    place::Place,
};

/// All figures of the report.
#[derive(Debug)]
pub(crate) struct Report {
    store: String,
    seed: u64,
    lived: Lived,
    ledger: Ledger,
    checks: Vec<Check>,
    seen: Seen,
    story: Option<Story>,
    bytes_per_event: Option<f64>,
    measured: Measured,
}

/// The thing whose bytes were measured.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Measured {
    /// The files of the store.
    Disk,
    /// The events themselves, if the store has no files on this machine.
    Events,
}

/// The JSON object; its fields have the same names.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    store: &'a str,
    seed: u64,
    accounts: usize,
    commands: u64,
    events: u64,
    events_added: u64,
    rejections: u64,
    rejections_by_kind: &'a BTreeMap<&'static str, u64>,
    conflicts_retried: u64,
    conflicts_given_up: u64,
    transfers: u64,
    conserved: bool,
    gaps: u64,
    checks: BTreeMap<&'static str, bool>,
    total_cents: i128,
    paid_in_cents: i128,
    paid_out_cents: i128,
    seconds: f64,
    commands_per_s: f64,
    bytes_per_event: Option<f64>,
    bytes_measured_on: Measured,
    read_models: SeenSummary<'a>,
}

/// The figures of the read models.
#[derive(Debug, Serialize)]
struct SeenSummary<'a> {
    accounts: u64,
    held_cents: i128,
    paid_in_cents: i128,
    paid_out_cents: i128,
    transfers: u64,
    richest: Vec<Rich<'a>>,
}

#[derive(Debug, Serialize)]
struct Rich<'a> {
    account: &'a str,
    owner: &'a str,
    cents: i128,
}

impl<'a> SeenSummary<'a> {
    fn of(Seen { richest, statistics, .. }: &'a Seen) -> Self {
        let rich = |(account, row): &'a (String, Row)| Rich {
            account,
            owner: &row.owner,
            cents: row.cents,
        };
        Self {
            accounts: statistics.accounts,
            held_cents: statistics.held_cents,
            paid_in_cents: statistics.paid_in_cents,
            paid_out_cents: statistics.paid_out_cents,
            transfers: statistics.transfers,
            richest: richest.iter().map(rich).collect(),
        }
    }
}

/// A line of the report: a count, and what there is to say of it.
struct Figure {
    name: &'static str,
    count: String,
    more: String,
}

impl Report {
    pub(crate) fn new(
        args: &DemoArgs,
        place: &Place,
        lived: Lived,
        audited: Audited,
        story: Option<Story>,
    ) -> Self {
        let Audited { ledger, checks, seen } = audited;
        let store = place.to_string();
        let seed = args.seed;
        let bytes_per_event = number::ratio(ledger.event_bytes, ledger.events);
        let measured = Measured::Events;
        Self { store, seed, lived, ledger, checks, seen, story, bytes_per_event, measured }
    }

    /// Measures the store on disk. The store is closed by now, so it has finished moving its data.
    pub(crate) fn measure(&mut self, place: &Place) {
        if let Some(bytes) = place.disk_bytes() {
            self.bytes_per_event = number::ratio(bytes, self.ledger.events);
            self.measured = Measured::Disk;
        }
    }

    /// The rules that do not hold.
    pub(crate) fn failed_checks(&self) -> Vec<&'static str> {
        self.checks.iter().filter(|check| !check.holds()).map(|check| check.claim).collect()
    }

    /// Writes the JSON object on one line.
    pub(crate) fn print_json(&self, out: &mut Output) -> Result<(), Failure> {
        let Lived { tally, conflicts, elapsed, .. } = &self.lived;
        let ledger = &self.ledger;
        let summary = Summary {
            store: &self.store,
            seed: self.seed,
            accounts: ledger.accounts.len(),
            commands: tally.commands,
            events: ledger.events,
            events_added: tally.events,
            rejections: tally.rejected(),
            rejections_by_kind: &tally.rejections,
            conflicts_retried: *conflicts,
            conflicts_given_up: tally.given_up,
            transfers: ledger.transfers,
            conserved: check::is_conserved(ledger),
            gaps: ledger.faults.gaps,
            checks: self.checks.iter().map(|check| (check.name, check.holds())).collect(),
            total_cents: ledger.total_cents(),
            paid_in_cents: ledger.paid_in_cents,
            paid_out_cents: ledger.paid_out_cents,
            seconds: elapsed.as_secs_f64(),
            commands_per_s: number::per_second(tally.commands, *elapsed),
            bytes_per_event: self.bytes_per_event,
            bytes_measured_on: self.measured,
            read_models: SeenSummary::of(&self.seen),
        };
        out.line(serde_json::to_string(&summary).expect("all keys are text"))
    }

    /// Writes the report for people.
    pub(crate) fn print(&self, out: &mut Output) -> Result<(), Failure> {
        let paint = out.paint();
        let title = format!("A month in the life of a bank, seed {}", self.seed);
        out.line(format_args!("{}  {}", paint.bold(title), paint.dim(&self.store)))?;
        self.figures().iter().try_for_each(|Figure { name, count, more }| {
            out.line(format_args!("  {name:<18}{count:>10}  {}", paint.dim(more)))
        })?;
        out.line(format_args!("\n{}", paint.bold("Folded again from the log")))?;
        self.checks.iter().try_for_each(|check| out.line(check_line(check, paint)))?;
        self.print_seen(out)?;
        match &self.story {
            Some(story) => print_story(story, out),
            None => Ok(()),
        }
    }

    fn figures(&self) -> [Figure; 6] {
        let Lived { tally, conflicts, running, elapsed } = &self.lived;
        let rate = number::rate(number::per_second(tally.commands, *elapsed));
        let measured = match self.measured {
            Measured::Disk => "on disk, all included",
            Measured::Events => "the events alone, without the store's own",
        };
        let bytes = self.bytes_per_event.map_or_else(|| "-".into(), |bytes| bytes.to_string());
        let commands = format!("in {}, {rate} per second", number::duration(*elapsed));
        let events = format!("in the log, {} of them new", grouped(tally.events));
        let counted = |name, count, more| Figure { name, count: grouped(count), more };
        [
            counted("commands", tally.commands, commands),
            counted("events", self.ledger.events, events),
            counted("rejections", tally.rejected(), by_kind(tally)),
            counted("conflicts retried", *conflicts, given_up(tally)),
            counted("entities", running.resident as u64, kept(running)),
            Figure { name: "bytes per event", count: bytes, more: measured.into() },
        ]
    }

    /// Writes the figures of the read models.
    fn print_seen(&self, out: &mut Output) -> Result<(), Failure> {
        let Seen { richest, statistics, .. } = &self.seen;
        if richest.is_empty() {
            return Ok(());
        }
        let paint = out.paint();
        out.line(format_args!("\n{}", paint.bold("The bank, by its statistics")))?;
        let accounts = counted(statistics.accounts, "account");
        let transfers = counted(statistics.transfers, "transfer");
        let more = paint.dim(format_args!("on {accounts}, {transfers} between them"));
        out.line(format_args!("  {:>14}  {more}", money(statistics.held_cents)))?;
        let title = paint.bold("The richest, by the account list");
        out.line(format_args!("\n{title}"))?;
        richest.iter().try_for_each(|(key, Row { owner, cents, .. })| {
            let stream = paint.dim(format_args!("account-{key}"));
            out.line(format_args!("  {:>14}  {owner:<18}  {stream}", money(*cents)))
        })
    }
}

fn by_kind(tally: &Tally) -> String {
    let kind = |(kind, count): (&&str, &u64)| {
        format!("{} {}", kind.replace("email", "e-mail").replace('_', " "), grouped(*count))
    };
    tally.rejections.iter().map(kind).collect::<Vec<_>>().join(", ")
}

fn given_up(tally: &Tally) -> String {
    match tally.given_up {
        0 => "another writer was first, so decided again".into(),
        count => format!("{} given up, others were first too often", counted(count, "command")),
    }
}

fn kept(running: &EntityStats) -> String {
    let loads = counted(running.loads, "load");
    let commands = counted(running.commands, "command");
    format!("accounts in memory, {loads} for {commands}")
}

fn check_line(check: &Check, paint: Paint) -> String {
    match &check.outcome {
        Outcome::Holds(figures) => {
            format!("  {} {:<24}  {}", paint.good("✓"), check.claim, paint.dim(figures))
        }
        Outcome::Fails(figures) => {
            format!("  {} {:<24}  {}", paint.bad("✗"), check.claim, paint.bad(figures))
        }
    }
}

fn print_story(story: &Story, out: &mut Output) -> Result<(), Failure> {
    let Story { key, holding, entries, week_ago, cents_week_ago } = story;
    let paint = out.paint();
    let shown = format!("the last {} of its {}", entries.len(), counted(holding.events, "event"));
    let title = paint.bold(format_args!("The busiest, {}", holding.owner));
    out.line(format_args!("\n{title}  {}", paint.dim(format_args!("account-{key}, {shown}"))))?;
    for Entry { at, what, cents, balance_cents } in entries {
        let sign = if *cents > 0 { "+" } else { "" };
        let at = paint.dim(minute(*at));
        let change = format!("{sign}{}", money(*cents));
        out.line(format_args!("  {at}  {change:>12}  {:>14}  {what}", money(*balance_cents)))?;
    }
    let before = match cents_week_ago {
        Some(cents) => format!("{:>14}  was on it a week earlier", money(i128::from(*cents))),
        None => format!("{:>14}  it was not open yet, a week earlier", "-"),
    };
    out.line(format_args!("  {}  {:>12}  {before}", paint.dim(minute(*week_ago)), ""))
}
