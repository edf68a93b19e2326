//! The report of the readings: a table for people, or one line of JSON each.

use std::{
    fs::File,
    io::{self, Write},
};

use crate::{
    load::{EVENTS_PER_STREAM, PAYLOAD_BYTES, STREAMS},
    peer::Store,
    ratio,
    reading::{Bench, Reading},
};

/// The format of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Everything on stdout.
    Table,
    /// JSON on stdout, all other output on stderr.
    Json,
}

/// The report, which alone writes to stdout.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) format: Format,
    stdout: File,
}

impl Report {
    /// Takes stdout for itself: from here on, output of other code to stdout is dropped.
    ///
    /// UmaDB prints its settings to stdout when it is opened, amid what should be JSON.
    pub(crate) fn new(format: Format) -> io::Result<Self> {
        let stdout = File::from(rustix::io::dup(io::stdout())?);
        rustix::stdio::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
        Ok(Self { format, stdout })
    }

    /// Prints a line of the report itself.
    pub(crate) fn print(&self, line: &str) {
        writeln!(&self.stdout, "{line}").expect("stdout takes the report");
    }

    /// Prints a line for people.
    pub(crate) fn say(&self, line: &str) {
        match self.format {
            Format::Table => self.print(line),
            Format::Json => eprintln!("{line}"),
        }
    }

    /// Prints what is measured, and on which disk.
    pub(crate) fn begin(&self, stores: &[Store], rounds: usize, threads: usize, disk: &str) {
        self.say(&format!(
            "payload={PAYLOAD_BYTES} bytes, streams={STREAMS}, reads of {EVENTS_PER_STREAM} events \
             per stream, rounds={rounds} (medians), client threads={threads}, disk={disk}"
        ));
        for store in stores {
            self.say(&format!("  {store:<12} {}", store.sync_policy()));
        }
    }

    /// Shows the readings of one work, each store beside the others.
    pub(crate) fn show(&self, readings: &[Reading]) {
        let Some(first) = readings.first() else { return };
        let work = match first.bench {
            Bench::Append => format!(
                "append, clients={}, events per append={}",
                first.clients, first.events_per_append
            ),
            Bench::Scan => "scan".into(),
            Bench::Streams => format!("streams, {EVENTS_PER_STREAM} events each"),
        };
        let floor = readings.iter().find(|reading| reading.store == Store::Floor);
        self.say(&format!(
            "\n{work}\n  {:<12} {:>12} {:>11} {:>11} {:>9} {:>8}",
            "store", "events/s", "p50 us", "p99 us", "/ floor", "B/event"
        ));
        for reading in readings {
            self.say(&row(reading, floor));
            if self.format == Format::Json {
                self.print(&reading.to_json().to_string());
            }
        }
    }

    /// Compares with the targets.
    pub(crate) fn end(&self, readings: &[Reading]) {
        self.say("\nratios, medians over the rounds");
        for line in ratio::targets(readings) {
            self.say(&format!("  {line}"));
        }
    }
}

fn row(reading: &Reading, floor: Option<&Reading>) -> String {
    let ratio = floor.map_or(String::new(), |floor| format!("{:.3}", ratio::ratio(reading, floor)));
    let bytes = reading.bytes_per_event.map_or(String::new(), |bytes| format!("{bytes:.0}"));
    format!(
        "  {:<12} {:>12.0} {:>11.1} {:>11.1} {ratio:>9} {bytes:>8}",
        reading.store,
        reading.events_per_s(),
        reading.p50_us(),
        reading.p99_us(),
    )
}
