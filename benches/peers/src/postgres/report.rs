//! The report of the readings on PostgreSQL.

use std::fmt;

use serde_json::json;

use crate::{
    load::{PAYLOAD_BYTES, STREAMS},
    postgres::{framework::POOL_CONNECTIONS, store::Store},
    ratio::ratio,
    reading::Reading,
    report::{Format, Report},
};

/// The work of the targets.
const TARGET: Work = Work { clients: 256, processes: 1 };
/// The target for factum against bare inserts of the same groups.
const OF_BARE: f64 = 0.7;
/// The target for factum against the fastest framework.
const OF_FRAMEWORKS: f64 = 4.0;

/// The number of clients, and of their processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) clients: usize,
    pub(crate) processes: usize,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clients, processes } = self;
        write!(f, "append, clients={clients}, processes={processes}")
    }
}

/// Prints what is measured, and on which server.
pub(crate) fn begin(
    report: &Report,
    stores: &[Store],
    rounds: usize,
    threads: usize,
    settings: &str,
) {
    report.say(&format!(
        "payload={PAYLOAD_BYTES} bytes, streams={STREAMS}, events per append=1, rounds={rounds} \
         (medians), client threads per process={threads}, \
         pool={POOL_CONNECTIONS} connections per process (factum 1 for appends, bare 1)"
    ));
    report.say(settings);
    for store in stores {
        report.say(&format!("  {store:<22} {}", store.append()));
    }
}

/// Shows the readings of one work, each store beside the others, and factum's ratios.
pub(crate) fn show(report: &Report, work: Work, group: usize, readings: &[Reading<Store>]) {
    report.say(&format!(
        "\n{work}, group={group}\n  {:<22} {:>10} {:>11} {:>11} {:>8}",
        "store", "events/s", "p50 us", "p99 us", "/ bare"
    ));
    let find = |store| readings.iter().find(|reading| reading.store == store);
    for reading in readings {
        report.say(&row(reading, find(Store::Bare)));
        if report.format == Format::Json {
            let mut object = reading.to_json();
            object["processes"] = json!(work.processes);
            report.print(&object.to_string());
        }
    }
    let frameworks = readings.iter().filter(|reading| reading.store.is_framework());
    let fastest = frameworks.max_by(|a, b| a.events_per_s().total_cmp(&b.events_per_s()));
    let Some(factum) = find(Store::Factum) else { return };
    let others = [
        (find(Store::Bare), Some(OF_BARE)),
        (find(Store::BareKey), None),
        (fastest, Some(OF_FRAMEWORKS)),
    ];
    for (other, target) in others {
        if let Some(other) = other {
            report.say(&comparison(factum, other, target.filter(|_| work == TARGET)));
        }
    }
}

fn row(reading: &Reading<Store>, bare: Option<&Reading<Store>>) -> String {
    let ratio = bare.map_or(String::new(), |bare| format!("{:.3}", ratio(reading, bare)));
    format!(
        "  {:<22} {:>10.0} {:>11.1} {:>11.1} {ratio:>8}",
        reading.store,
        reading.events_per_s(),
        reading.p50_us(),
        reading.p99_us(),
    )
}

fn comparison(factum: &Reading<Store>, other: &Reading<Store>, target: Option<f64>) -> String {
    let measured = ratio(factum, other);
    let fastest = if other.store.is_framework() { ", the fastest framework" } else { "" };
    let verdict = target.map_or(String::new(), |target| {
        let verdict = if measured >= target { "met" } else { "missed" };
        format!(", target {target:.2}, {verdict}")
    });
    format!("  factum / {} = {measured:.2}{fastest}{verdict}", other.store)
}
