//! What the demonstration says in the end, to people and to programs.

use std::collections::BTreeMap;

use factum::EntityStats;
use serde::Serialize;

use crate::{
    args::DemoArgs,
    demo::{
        Lived,
        audit::{Audited, Entry, Story},
        bank::Tally,
        check::{self, Check, Outcome},
        ledger::{Holding, Ledger},
    },
    exit::Failure,
    number::{self, counted, grouped, minute, money},
    output::{Output, Paint},
    place::Place,
};

const RICHEST_MAX: usize = 5;

/// All there is to tell.
#[derive(Debug)]
pub(crate) struct Report {
    store: String,
    seed: u64,
    lived: Lived,
    ledger: Ledger,
    checks: Vec<Check>,
    story: Option<Story>,
    bytes_per_event: Option<f64>,
    measured: Measured,
}

/// What the bytes per event were measured on.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Measured {
    /// The files of the store.
    Disk,
    /// The events themselves, for a store that has no files here.
    Events,
}

/// The names are those of the JSON object.
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
}

impl Report {
    pub(crate) fn new(
        args: &DemoArgs,
        place: &Place,
        lived: Lived,
        audited: Audited,
        story: Option<Story>,
    ) -> Self {
        let Audited { ledger, checks } = audited;
        let (store, seed) = (place.to_string(), args.seed);
        let bytes_per_event = number::ratio(ledger.event_bytes, ledger.events);
        let measured = Measured::Events;
        Self { store, seed, lived, ledger, checks, story, bytes_per_event, measured }
    }

    /// Looks how large the store is; closed by now, so that what it had yet to move is moved.
    pub(crate) fn measure(&mut self, place: &Place) {
        if let Some(bytes) = place.disk_bytes() {
            self.bytes_per_event = number::ratio(bytes, self.ledger.events);
            self.measured = Measured::Disk;
        }
    }

    /// What does not hold.
    pub(crate) fn failed_checks(&self) -> Vec<&'static str> {
        self.checks.iter().filter(|check| !check.holds()).map(|check| check.claim).collect()
    }

    /// Writes one JSON object, on a line of its own.
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
        };
        out.line(serde_json::to_string(&summary).expect("all keys are text"))
    }

    /// Writes it for people.
    pub(crate) fn print(&self, out: &mut Output) -> Result<(), Failure> {
        let paint = out.paint();
        let title = format!("A month in the life of a bank, seed {}", self.seed);
        out.line(format_args!("{}  {}", paint.bold(title), paint.dim(&self.store)))?;
        self.figures().iter().try_for_each(|(name, count, more)| {
            out.line(format_args!("  {name:<18}{count:>10}  {}", paint.dim(more)))
        })?;
        out.line(format_args!("\n{}", paint.bold("Folded again from the log")))?;
        self.checks.iter().try_for_each(|check| out.line(check_line(check, paint)))?;
        self.print_richest(out)?;
        match &self.story {
            Some(story) => print_story(story, out),
            None => Ok(()),
        }
    }

    fn figures(&self) -> [(&'static str, String, String); 6] {
        let Lived { tally, conflicts, running, elapsed } = &self.lived;
        let rate = number::rate(number::per_second(tally.commands, *elapsed));
        let measured = match self.measured {
            Measured::Disk => "on disk, all included",
            Measured::Events => "the events alone, without the store's own",
        };
        let bytes = self.bytes_per_event.map_or_else(|| "-".into(), |bytes| bytes.to_string());
        [
            (
                "commands",
                grouped(tally.commands),
                format!("in {}, {rate} per second", number::duration(*elapsed)),
            ),
            (
                "events",
                grouped(self.ledger.events),
                format!("in the log, {} of them new", grouped(tally.events)),
            ),
            ("rejections", grouped(tally.rejected()), by_kind(tally)),
            ("conflicts retried", grouped(*conflicts), given_up(tally)),
            ("entities", grouped(running.resident as u64), kept(running)),
            ("bytes per event", bytes, measured.into()),
        ]
    }

    fn print_richest(&self, out: &mut Output) -> Result<(), Failure> {
        let mut accounts: Vec<_> = self.ledger.accounts.iter().collect();
        if accounts.is_empty() {
            return Ok(());
        }
        // The names behind the balances, so that equals stand in an order of their own.
        accounts.sort_by_key(|(key, holding)| (-holding.balance_cents, *key));
        out.line(format_args!("\n{}", out.paint().bold("The richest")))?;
        for (key, Holding { owner, balance_cents, .. }) in accounts.into_iter().take(RICHEST_MAX) {
            let stream = out.paint().dim(format_args!("account-{key}"));
            out.line(format_args!("  {:>14}  {owner:<18}  {stream}", money(*balance_cents)))?;
        }
        Ok(())
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
    let (loads, commands) = (counted(running.loads, "load"), counted(running.commands, "command"));
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
        let (at, change) = (paint.dim(minute(*at)), format!("{sign}{}", money(*cents)));
        out.line(format_args!("  {at}  {change:>12}  {:>14}  {what}", money(*balance_cents)))?;
    }
    let before = match cents_week_ago {
        Some(cents) => format!("{:>14}  was on it a week earlier", money(i128::from(*cents))),
        None => format!("{:>14}  it was not open yet, a week earlier", "-"),
    };
    out.line(format_args!("  {}  {:>12}  {before}", paint.dim(minute(*week_ago)), ""))
}
