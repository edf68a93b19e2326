//! The arguments of the command.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};

use crate::{load::Load, peer::Store, postgres};

/// The number of events in an append if there are 16 clients; otherwise an append holds one.
const EVENTS_PER_APPEND: usize = 100;

/// Measures Factum's stores beside other engines and frameworks.
#[derive(Debug, Parser)]
#[command(name = "peers")]
pub(crate) struct Arguments {
    /// Short readings, three rounds: under five minutes for everything.
    #[arg(long, global = true)]
    pub(crate) quick: bool,
    /// One JSON object per reading on stdout; all other output on stderr.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The folder to measure in, which decides the disk that is measured.
    #[arg(long, global = true, value_name = "PATH", default_value_os_t = std::env::temp_dir())]
    pub(crate) disk: PathBuf,
    /// The stores to measure; by default all of them.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', value_parser = Store::parse)]
    pub(crate) only: Vec<Store>,
    /// The numbers of clients that append at once. 16 clients append 100 events at a time.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,16,256,1024")]
    #[arg(value_parser = parse_clients)]
    pub(crate) clients: Vec<usize>,
    #[command(subcommand)]
    pub(crate) suite: Option<Suite>,
}

/// The other suites.
#[derive(Debug, Subcommand)]
pub(crate) enum Suite {
    /// The frameworks on PostgreSQL.
    Postgres(postgres::Options),
    /// The clients of one process, for `postgres`.
    #[command(hide = true)]
    PostgresClients(postgres::Job),
}

pub(crate) fn parse_clients(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(clients @ 1..=100_000) => Ok(clients),
        _ => Err("a number from 1 to 100000".into()),
    }
}

impl Arguments {
    /// The stores to measure, in the order of the report.
    pub(crate) fn stores(&self) -> Vec<Store> {
        let is_wanted = |store: &Store| self.only.is_empty() || self.only.contains(store);
        Store::ALL.iter().copied().filter(is_wanted).collect()
    }

    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 3 } else { 5 }
    }

    /// The least time of one reading of scans or of streams.
    pub(crate) fn read_time(&self) -> Duration {
        Duration::from_millis(if self.quick { 500 } else { 3_000 })
    }

    /// The load of one reading with this many clients.
    pub(crate) fn load(&self, clients: usize) -> Load {
        let (events, seconds) = if self.quick { (200_000, 1) } else { (1_000_000, 8) };
        let events_per_append = if clients == 16 { EVENTS_PER_APPEND } else { 1 };
        // A single client appends few events, and the floor writes zeros for every event
        // beforehand.
        let events = events.min(clients * events_per_append * 50_000);
        Load { clients, events_per_append, events, time_max: Duration::from_secs(seconds) }
    }
}
