//! The ratios: two stores compared on the same work in the same rounds.

use std::fmt;

use crate::{
    peer::Store::{self, Channel, Floor, Journal, Umadb, UmadbCached},
    reading::{
        Bench::{self, Append, Scan, Streams},
        Reading, median,
    },
};

/// A target for a ratio.
#[derive(Debug)]
struct Target {
    bench: Bench,
    clients: usize,
    of: Store,
    to: Store,
    at_least: f64,
}

const TARGETS: &[Target] = &[
    Target { bench: Append, clients: 1_024, of: Journal, to: Umadb, at_least: 5.0 },
    Target { bench: Append, clients: 1_024, of: Journal, to: Channel, at_least: 0.6 },
    Target { bench: Append, clients: 16, of: Journal, to: Floor, at_least: 0.4 },
    // An append takes at most 1.3 times as long.
    Target { bench: Append, clients: 1, of: Journal, to: Floor, at_least: 1.0 / 1.3 },
    Target { bench: Scan, clients: 1, of: Journal, to: Umadb, at_least: 5.0 },
    Target { bench: Scan, clients: 1, of: Journal, to: UmadbCached, at_least: 5.0 },
    Target { bench: Scan, clients: 1, of: Journal, to: Floor, at_least: 0.25 },
    Target { bench: Streams, clients: 1, of: Journal, to: Umadb, at_least: 5.0 },
    Target { bench: Streams, clients: 1, of: Journal, to: UmadbCached, at_least: 5.0 },
];

/// The median over the rounds of the ratio of their rates.
pub(crate) fn ratio<S: fmt::Display>(of: &Reading<S>, to: &Reading<S>) -> f64 {
    median(of.rates().zip(to.rates()).map(|(of, to)| of / to))
}

/// A line for each target whose two stores were measured.
pub(crate) fn targets(readings: &[Reading]) -> Vec<String> {
    TARGETS.iter().filter_map(|target| line(target, readings)).collect()
}

fn line(target: &Target, readings: &[Reading]) -> Option<String> {
    let Target { bench, clients, of, to, at_least } = target;
    let find = |store: Store| {
        readings.iter().find(|reading| {
            (reading.bench, reading.clients, reading.store) == (*bench, *clients, store)
        })
    };
    let measured = ratio(find(*of)?, find(*to)?);
    let verdict = if measured >= *at_least { "met" } else { "missed" };
    Some(format!(
        "{bench}, clients={clients}: {of} / {to} = {measured:.2}, target {at_least:.2}, {verdict}"
    ))
}
