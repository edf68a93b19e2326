//! Factum on PostgreSQL beside the event sourcing frameworks for Rust that keep events there: the
//! same events of a bank, into fresh databases of one server, from one process and from several.
//!
//! Measured is the append alone: an event is in the database, durably, unless somebody else has
//! written to its stream meanwhile. Each client has streams of its own and remembers their
//! versions, so nobody reads before he writes and nobody meets a true conflict. Most of the
//! frameworks would have the application load the stream first, which costs them more.
//!
//! Each framework gets the fastest way to append that its public interface has, with its check of
//! versions, and all get the same pool ([`framework::pool`]). Not measured:
//!
//! - eventually 0.4 with eventually-postgres 0.2, the newest: does not compile, its refinery-core
//!   0.3 uses `serde::export`, which serde has no longer.

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

/// What this suite alone is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A server whose user may make databases; a throw-away one on this machine unless said
    /// otherwise.
    #[arg(long)]
    url: Option<String>,
    /// The stores to measure, all of them unless said otherwise.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', value_parser = Store::parse)]
    only: Vec<Store>,
    /// How many clients append at once, in all processes together.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,16,256")]
    #[arg(value_parser = parse_clients)]
    clients: Vec<usize>,
    /// How many processes the clients are spread over, as far as there is a client for each.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,4")]
    #[arg(value_parser = parse_clients)]
    processes: Vec<usize>,
}

impl Options {
    /// The stores to measure, in the order they are printed in.
    fn stores(&self) -> Vec<Store> {
        let is_wanted = |store: &Store| self.only.is_empty() || self.only.contains(store);
        Store::ALL.iter().copied().filter(is_wanted).collect()
    }
}

pub(crate) fn measure(arguments: &Arguments, options: &Options) -> Result<(), String> {
    Run::new(arguments, options)?.measure()
}
