//! Factum on PostgreSQL beside the event sourcing frameworks for Rust that keep events there: the
//! same events of a bank, into fresh databases of one server, from one process and from several.
//!
//! Only the append is measured: an event is in the database, durably, unless another client has
//! written to its stream in the meantime. Each client has streams of its own and remembers their
//! versions, so no client reads before it writes, and none meets a true conflict. Most of the
//! frameworks would have the application load the stream first, which costs more.
//!
//! Each framework gets the fastest append of its public interface that checks versions, and all get
//! the same pool ([`framework::pool`]). Not measured:
//!
//! - eventually 0.4 with eventually-postgres 0.2, the newest version: it does not compile, because
//!   its refinery-core 0.3 uses `serde::export`, which serde has removed.

mod store;

mod framework;

mod bare;
mod clients;

mod process;
mod subject;

mod database;
mod server;

mod report;
mod run;

use crate::arguments::{Arguments, parse_clients};

pub(crate) use process::{Job, serve};
use run::Run;
use store::Store;

/// The options of this suite.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A server whose user may make databases; by default, a throw-away one on this machine.
    #[arg(long)]
    url: Option<String>,
    /// The stores to measure; by default all of them.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', value_parser = Store::parse)]
    only: Vec<Store>,
    /// The numbers of clients that append at once, in all processes together.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,16,256")]
    #[arg(value_parser = parse_clients)]
    clients: Vec<usize>,
    /// The numbers of processes that the clients are spread over, at most one per client.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,4")]
    #[arg(value_parser = parse_clients)]
    processes: Vec<usize>,
}

impl Options {
    /// The stores to measure, in the order of the report.
    fn stores(&self) -> Vec<Store> {
        let is_wanted = |store: &Store| self.only.is_empty() || self.only.contains(store);
        Store::ALL.iter().copied().filter(is_wanted).collect()
    }
}

pub(crate) fn measure(arguments: &Arguments, options: &Options) -> Result<(), String> {
    Run::new(arguments, options)?.measure()
}
