//! The whole run: every number of clients and processes, round by round, each store once in a
//! round.

use std::time::Duration;

use tokio::runtime::Runtime;

use crate::{
    arguments::Arguments,
    load::STREAMS,
    postgres::{
        Options,
        database::Database,
        process::{self, Job},
        report::{self, Work},
        server::Server,
        store::Store,
        subject::subject,
    },
    reading::{Bench, Reading},
    report::{Format, Report},
    run::client_threads,
};

pub(crate) struct Run<'a> {
    arguments: &'a Arguments,
    options: &'a Options,
    stores: Vec<Store>,
    report: Report,
    runtime: Runtime,
    database: Database,
    /// The server that was started for this run.
    _server: Option<Server>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(arguments: &'a Arguments, options: &'a Options) -> Result<Self, String> {
        if options.clients.iter().any(|clients| *clients > STREAMS) {
            return Err(format!("each client has streams of its own, at most {STREAMS} clients"));
        }
        let (server, url) = match &options.url {
            Some(url) => (None, url.clone()),
            None => {
                let server = Server::start(&arguments.disk)?;
                let url = server.url.clone();
                (Some(server), url)
            }
        };
        let runtime = process::runtime(1);
        let database = Database::connect(&runtime, &url)?;
        let format = if arguments.json { Format::Json } else { Format::Table };
        let report = Report::new(format).map_err(|e| format!("no stdout to report on: {e}"))?;
        let version = database.version(&runtime)?;
        let (stores, too_new): (Vec<_>, Vec<_>) =
            options.stores().into_iter().partition(|store| store.server_min() <= version);
        for store in too_new {
            report.say(&format!("{store} is left out: it needs PostgreSQL {}", store.server_min()));
        }
        Ok(Self { arguments, options, stores, report, runtime, database, _server: server })
    }

    pub(crate) fn measure(&self) -> Result<(), String> {
        let settings = self.database.settings(&self.runtime)?;
        let rounds = self.arguments.rounds();
        report::begin(&self.report, &self.stores, rounds, client_threads(), &settings);
        for processes in &self.options.processes {
            for clients in self.options.clients.iter().filter(|clients| *clients >= processes) {
                self.append(Work { clients: *clients, processes: *processes })?;
            }
        }
        self.database.remove(&self.runtime)
    }

    fn append(&self, work: Work) -> Result<(), String> {
        let reading = |store: &Store| Reading::new(Bench::Append, *store, work.clients, 1);
        let mut readings: Vec<_> = self.stores.iter().map(reading).collect();
        // As large as factum's last groups, or as a group of all clients that may wait.
        let mut group = work.clients / work.processes;
        let count = readings.len();
        for round in 0..self.arguments.rounds() {
            for turn in 0..count {
                let reading = &mut readings[(round + turn) % count];
                eprint!("\r{work} round {}: {:<22}", round + 1, reading.store);
                let together = self.append_once(reading.store, work, group)?;
                reading.add(together.measured);
                group = together.group.unwrap_or(group);
            }
        }
        eprint!("\r{:<79}\r", "");
        report::show(&self.report, work, group, &readings);
        Ok(())
    }

    fn append_once(
        &self,
        store: Store,
        work: Work,
        group: usize,
    ) -> Result<process::Together, String> {
        let url = self.database.fresh(&self.runtime)?;
        subject(store).prepare(&self.runtime, &url);
        let Work { clients, processes } = work;
        let time_ms = self.time().as_millis() as u64;
        let job = Job { url, store, clients, processes, process: 0, group, time_ms };
        let together = process::measure(&job)?;
        let stored = Database::count(&self.runtime, &job.url, store.table())?;
        assert!(stored >= together.measured.events, "events are missing: store={store}");
        Ok(together)
    }

    /// The time of one reading.
    fn time(&self) -> Duration {
        Duration::from_millis(if self.arguments.quick { 1_000 } else { 5_000 })
    }
}
