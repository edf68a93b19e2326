//! The result of the rounds, as one JSON object.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};

use super::Options;

/// Each read model, and the measurement that it is compared with.
const PAIRS: [(&str, Option<&str>); 6] = [
    ("memory", Some("scan")),
    ("documents", None),
    ("documents_partitioned", Some("documents")),
    ("sqlite", Some("sqlite_bare")),
    ("postgres", Some("postgres_bare")),
    ("postgres_partitioned", Some("postgres")),
];

/// The events per second of each round, by measurement.
#[derive(Debug)]
pub(super) struct Rates {
    events: u64,
    rounds: BTreeMap<&'static str, Vec<f64>>,
}

impl Rates {
    /// An empty list, for a log with this many events.
    pub(super) fn new(events: u64) -> Self {
        Self { events, rounds: BTreeMap::new() }
    }

    /// Adds the time of one pass over the log.
    pub(super) fn add(&mut self, what: &'static str, elapsed: Duration) {
        let rate = self.events as f64 / elapsed.as_secs_f64();
        self.rounds.entry(what).or_default().push(rate);
    }

    /// The median of the rounds.
    fn median(&self, what: &str) -> Option<f64> {
        let mut rounds = self.rounds.get(what)?.clone();
        rounds.sort_by(f64::total_cmp);
        rounds.get(rounds.len() / 2).copied()
    }
}

/// The result of the rounds, and the latencies in microseconds.
pub(super) fn object(options: &Options, rates: &Rates, mut latencies: Vec<u64>) -> Value {
    let object = json!({
        "bench": "project", "store": "journal", "events": rates.events,
        "payload_bytes": options.payload_bytes, "streams": options.streams,
        "batch": options.batch, "partitions": options.partitions, "rounds": options.rounds,
    });
    let Value::Object(mut object) = object else { unreachable!("it is written as an object") };
    for (what, beside) in PAIRS {
        put_rates(&mut object, rates, what, beside);
    }
    latencies.sort_unstable();
    for (name, percent) in [("p50_us", 50), ("p99_us", 99)] {
        let rank = (latencies.len() * percent).div_ceil(100).max(1);
        if let Some(micros) = latencies.get(rank - 1) {
            object.insert(name.into(), json!(micros));
        }
    }
    object.into()
}

fn put_rates(
    object: &mut Map<String, Value>,
    rates: &Rates,
    what: &str,
    beside: Option<&'static str>,
) {
    let rate = rates.median(what);
    if let Some(rate) = rate {
        object.insert(format!("{what}_per_s"), json!(rate.round()));
    }
    let Some((beside, bare)) = beside.and_then(|it| Some((it, rates.median(it)?))) else { return };
    object.insert(format!("{beside}_per_s"), json!(bare.round()));
    if let Some(rate) = rate {
        let ratio = (rate / bare * 1_000.0).round() / 1_000.0;
        object.insert(format!("{what}_ratio"), json!(ratio));
    }
}
