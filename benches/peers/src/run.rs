//! The whole run: every work, round by round, each store once in a round.

use std::{sync::Arc, thread};

use tokio::runtime::{Builder, Runtime};

use crate::{
    arguments::Arguments,
    clients::Measured,
    peer::Store,
    reading::{Bench, Reading},
    report::{Format, Report},
    subject::{Filled, subject},
};

pub(crate) struct Run {
    arguments: Arguments,
    stores: Vec<Store>,
    runtime: Arc<Runtime>,
    report: Report,
}

impl Run {
    pub(crate) fn new(arguments: Arguments) -> Result<Self, String> {
        if !arguments.disk.is_dir() {
            return Err(format!("--disk names no folder: {}", arguments.disk.display()));
        }
        let runtime = Builder::new_multi_thread().worker_threads(client_threads()).build();
        let runtime = Arc::new(runtime.map_err(|e| format!("no threads for the clients: {e}"))?);
        let format = if arguments.json { Format::Json } else { Format::Table };
        let report = Report::new(format).map_err(|e| format!("no stdout to report on: {e}"))?;
        Ok(Self { stores: arguments.stores(), runtime, report, arguments })
    }

    pub(crate) fn measure(&self) {
        let disk = self.arguments.disk.display().to_string();
        self.report.begin(&self.stores, self.arguments.rounds(), client_threads(), &disk);
        let mut readings = Vec::new();
        for clients in &self.arguments.clients {
            readings.extend(self.append(*clients));
        }
        readings.extend(self.read());
        self.report.end(&readings);
    }

    fn append(&self, clients: usize) -> Vec<Reading> {
        let load = self.arguments.load(clients);
        let mut readings: Vec<_> = self
            .stores
            .iter()
            .map(|store| Reading::new(Bench::Append, *store, clients, load.events_per_append))
            .collect();
        let disk = &self.arguments.disk;
        self.each_round(&mut readings, |store, _| subject(store, &self.runtime).append(disk, load));
        self.report.show(&readings);
        readings
    }

    fn read(&self) -> Vec<Reading> {
        let read: Vec<_> = self.stores.iter().copied().filter(|store| store.is_read()).collect();
        let filled: Vec<_> = read.iter().map(|store| self.fill(*store)).collect();
        let time = self.arguments.read_time();
        let mut all = self.read_filled(&read, &filled, Bench::Scan, |peer| peer.scan(time));
        let streams = |peer: &dyn Filled| peer.read_streams(time);
        all.extend(self.read_filled(&read, &filled, Bench::Streams, streams));
        all
    }

    fn fill(&self, store: Store) -> Box<dyn Filled> {
        eprintln!("filling {store}");
        subject(store, &self.runtime).fill(&self.arguments.disk)
    }

    fn read_filled(
        &self,
        stores: &[Store],
        filled: &[Box<dyn Filled>],
        bench: Bench,
        read: impl Fn(&dyn Filled) -> Measured,
    ) -> Vec<Reading> {
        let mut readings: Vec<_> =
            stores.iter().map(|store| Reading::new(bench, *store, 1, 1)).collect();
        self.each_round(&mut readings, |_, at| read(&*filled[at]));
        for (reading, filled) in readings.iter_mut().zip(filled) {
            reading.bytes_per_event = Some(filled.bytes_per_event());
        }
        self.report.show(&readings);
        readings
    }

    /// Measures each store once in each round, and begins with another store every time. Otherwise,
    /// the same store would always find the disk busy with the work of the one before.
    fn each_round(&self, readings: &mut [Reading], measure: impl Fn(Store, usize) -> Measured) {
        let count = readings.len();
        for round in 0..self.arguments.rounds() {
            for turn in 0..count {
                let at = (round + turn) % count;
                let reading = &mut readings[at];
                eprint!("\r{:<7} round {}: {:<12}", reading.bench, round + 1, reading.store);
                reading.add(measure(reading.store, at));
            }
        }
        eprint!("\r{:<40}\r", "");
    }
}

/// One core is left to the writer.
pub(crate) fn client_threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get() - 1).max(1)
}
