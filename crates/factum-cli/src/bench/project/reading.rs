//! What `bench project` says in the end.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};

use crate::{
    args::ProjectArgs,
    bench::latency::Latencies,
    exit::Failure,
    number::{self, counted, micros},
    output::Output,
    place::Place,
};

/// What is measured, and beside what.
const PAIRS: [(&str, Option<&str>); 6] = [
    ("memory", Some("scan")),
    ("documents", None),
    ("documents_partitioned", Some("documents")),
    ("sqlite", Some("sqlite_bare")),
    ("postgres", Some("postgres_bare")),
    ("postgres_partitioned", Some("postgres")),
];

/// Events per second of each round, by what was measured.
#[derive(Debug)]
pub(super) struct Rates {
    events: u64,
    rounds: BTreeMap<&'static str, Vec<f64>>,
}

impl Rates {
    /// None yet, of a log of so many events.
    pub(super) fn new(events: u64) -> Self {
        Self { events, rounds: BTreeMap::new() }
    }

    /// One pass took so long.
    pub(super) fn add(&mut self, what: &'static str, elapsed: Duration) {
        let rate = number::per_second(self.events, elapsed);
        self.rounds.entry(what).or_default().push(rate);
    }

    /// The round in the middle.
    fn median(&self, what: &str) -> Option<f64> {
        let mut rounds = self.rounds.get(what)?.clone();
        rounds.sort_by(f64::total_cmp);
        rounds.get(rounds.len() / 2).copied()
    }
}

/// The whole measurement; the names are those of the JSON object.
#[derive(Debug)]
pub(super) struct Reading {
    object: Map<String, Value>,
    work: String,
}

impl Reading {
    /// What the rounds came to.
    pub(super) fn of(
        args: &ProjectArgs,
        store: &str,
        events: u64,
        rates: &Rates,
        latencies: &Latencies,
    ) -> Self {
        let mut object = Map::new();
        let mut put = |name: String, value: Value| drop(object.insert(name, value));
        put("bench".into(), "project".into());
        put("store".into(), store.into());
        put("events".into(), events.into());
        put("payload_bytes".into(), args.payload_bytes.into());
        put("streams".into(), args.streams.into());
        put("batch".into(), args.batch.into());
        put("partitions".into(), args.partitions.into());
        put("rounds".into(), args.rounds.into());
        for (what, beside) in PAIRS {
            let rate = rates.median(what);
            let bare = beside.and_then(|beside| Some((beside, rates.median(beside)?)));
            if let Some(rate) = rate {
                put(format!("{what}_per_s"), json!(rate.round()));
            }
            if let Some((beside, bare)) = bare {
                put(format!("{beside}_per_s"), json!(bare.round()));
            }
            if let Some((rate, (_, bare))) = rate.zip(bare) {
                put(format!("{what}_ratio"), json!((rate / bare * 1_000.0).round() / 1_000.0));
            }
        }
        for (name, percent) in [("p50_us", 50), ("p99_us", 99)] {
            if let Some(micros) = latencies.percentile(percent) {
                put(name.into(), micros.into());
            }
        }
        let work = format!(
            "{} of {} of text in {}, batches of {}",
            counted(events, "event"),
            counted(args.payload_bytes, "byte"),
            counted(args.streams, "account"),
            number::grouped(args.batch),
        );
        Self { object, work }
    }

    /// Writes the object, on a line of its own.
    pub(super) fn print_json(&self, out: &mut Output) -> Result<(), Failure> {
        out.line(serde_json::to_string(&self.object).expect("all keys are text"))
    }

    /// Writes it for people.
    pub(super) fn print(&self, out: &mut Output, place: &Place) -> Result<(), Failure> {
        out.line(out.paint().bold("bench project"))?;
        out.line(format_args!("  store      {place}"))?;
        out.line(format_args!("  work       {}", self.work))?;
        let number = |name: String| self.object.get(&name).and_then(Value::as_f64);
        for (what, beside) in PAIRS {
            let Some(rate) = number(format!("{what}_per_s")) else { continue };
            let beside = beside.and_then(|it| Some((it, number(format!("{it}_per_s"))?)));
            let ratio = number(format!("{what}_ratio"));
            let beside = beside.zip(ratio).map_or_else(String::new, |((beside, bare), ratio)| {
                format!(", {} {}: {ratio:.2}", beside.replace('_', " "), number::rate(bare))
            });
            let rate = number::rate(rate);
            // Of partitions, only what they are beside.
            let what = if what.ends_with("_partitioned") { "  parallel" } else { what };
            out.line(format_args!("  {what:<10} {rate} events per second{beside}"))?;
        }
        if !self.object.contains_key("postgres_per_s") {
            out.line("  postgres   not measured, name a database by --postgres")?;
        }
        let percentile = |name| self.object.get(name).and_then(Value::as_u64).map(micros);
        if let Some((p50, p99)) = percentile("p50_us").zip(percentile("p99_us")) {
            out.line(format_args!("  visible    p50 {p50}, p99 {p99} after the append"))?;
        }
        Ok(())
    }
}
