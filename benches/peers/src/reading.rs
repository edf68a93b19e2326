//! Readings: the measurements of one store in each round, and the median over the rounds.

use std::{fmt, time::Duration};

use serde_json::{Value, json};

use crate::{clients::Measured, peer::Store};

/// The kind of work that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bench {
    Append,
    Scan,
    Streams,
}

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Append => "append",
            Self::Scan => "scan",
            Self::Streams => "streams",
        })
    }
}

/// The readings of one store in all rounds.
#[derive(Debug)]
pub(crate) struct Reading<S = Store> {
    pub(crate) bench: Bench,
    pub(crate) store: S,
    pub(crate) clients: usize,
    pub(crate) events_per_append: usize,
    rounds: Vec<Round>,
    /// Present if the store was filled in the same way as all others.
    pub(crate) bytes_per_event: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
struct Round {
    events_per_s: f64,
    p50_us: f64,
    p99_us: f64,
}

impl<S: fmt::Display> Reading<S> {
    pub(crate) fn new(bench: Bench, store: S, clients: usize, events_per_append: usize) -> Self {
        let rounds = Vec::new();
        let bytes_per_event = None;
        Self { bench, store, clients, events_per_append, rounds, bytes_per_event }
    }

    /// Adds the measurement of a round.
    pub(crate) fn add(&mut self, mut measured: Measured) {
        measured.latencies.sort_unstable();
        self.rounds.push(Round {
            events_per_s: measured.events as f64 / measured.time.as_secs_f64(),
            p50_us: percentile(&measured.latencies, 50),
            p99_us: percentile(&measured.latencies, 99),
        });
    }

    pub(crate) fn events_per_s(&self) -> f64 {
        median(self.rates())
    }

    /// Events per second, round by round.
    pub(crate) fn rates(&self) -> impl Iterator<Item = f64> {
        self.rounds.iter().map(|round| round.events_per_s)
    }

    pub(crate) fn p50_us(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.p50_us))
    }

    pub(crate) fn p99_us(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.p99_us))
    }

    /// The object of `--json`.
    pub(crate) fn to_json(&self) -> Value {
        let mut object = json!({
            "bench": self.bench.to_string(),
            "store": self.store.to_string(),
            "clients": self.clients,
            "events_per_s": self.events_per_s().round(),
            "p50_us": tenths(self.p50_us()),
            "p99_us": tenths(self.p99_us()),
        });
        match self.bytes_per_event {
            Some(bytes) => object["bytes_per_event"] = json!(tenths(bytes)),
            None => object["events_per_append"] = json!(self.events_per_append),
        }
        object
    }
}

/// The median; the upper one of two middle numbers.
pub(crate) fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}
