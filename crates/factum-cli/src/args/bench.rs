//! What can be said to the benchmarks of what runs above a store: entities and loading.

use std::path::PathBuf;

use super::whole;

/// Measure commands through entities against plain appends
///
/// Rounds are interleaved, on one store: in each, so many clients append events with any version
/// expected, each waiting for its answer, and then as many clients give as many commands to
/// entities that are in memory: deposits on accounts, encoded in CBOR, answered when they are
/// durable. The events are the same. Rates are the medians of the rounds, the ratio is the median
/// of theirs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: bench, store, clients, events (commands of a round), rounds, keys,
  durability, seconds, events_per_s (commands), p50_us and p99_us (of a command), appends_per_s,
  ratio (commands to appends).

Examples:
  factum bench entities
  factum bench entities --disk /dev/shm --rounds 5 --json | jq .ratio")]
pub(crate) struct EntitiesArgs {
    #[command(flatten)]
    pub(crate) ground: GroundArgs,
    /// Clients that ask at once, 1 to 100,000
    #[arg(long, value_name = "N", default_value_t = 1_024)]
    #[arg(value_parser = whole(1..=100_000), allow_negative_numbers = true)]
    pub(crate) clients: u64,
    /// Commands of a round, and appends, 1 to 100,000,000
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = whole(1..=100_000_000), allow_negative_numbers = true)]
    pub(crate) commands: u64,
    /// Accounts that they are spread over, 1 to 1,000,000
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = whole(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) keys: u64,
    /// Rounds, 1 to 1,000
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = whole(1..=1_000), allow_negative_numbers = true)]
    pub(crate) rounds: u64,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Measure how long an aggregate takes to load, against reading what it is loaded from
///
/// Accounts with so many events each are loaded one after another, in turn with reads of the same
/// events from the store, which are not decoded. Then all of them have a snapshot at their last
/// event, and are loaded again, in turn with reads of that one document and of the page behind it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: bench, store, clients (1), events (of an account), keys, rounds, load_us,
  read_us, ratio (load to read), snapshot_load_us, snapshot_read_us, snapshot_ratio.

Examples:
  factum bench recover
  factum bench recover --disk /dev/shm --events 10000 --json")]
pub(crate) struct RecoverArgs {
    #[command(flatten)]
    pub(crate) ground: GroundArgs,
    /// Events of an account, 1 to 100,000
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = whole(1..=100_000), allow_negative_numbers = true)]
    pub(crate) events: u64,
    /// Accounts, 1 to 10,000
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = whole(1..=10_000), allow_negative_numbers = true)]
    pub(crate) keys: u64,
    /// Rounds, 1 to 1,000
    #[arg(long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = whole(1..=1_000), allow_negative_numbers = true)]
    pub(crate) rounds: u64,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Measure what an idle entity takes in memory
///
/// Activates so many accounts that have no events, on a store in memory, and compares the memory
/// that the process holds with what it held before: /proc/self/statm, so only where that is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: bench, store, clients, entities, seconds, events_per_s (activations),
  bytes_per_entity, state_bytes (without what it points to, of which there is none),
  bytes_beside_state.

Examples:
  factum bench idle
  factum bench idle --entities 100000 --json | jq .bytes_beside_state")]
pub(crate) struct IdleArgs {
    /// Entities to activate, 1,000 to 100,000,000
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    #[arg(value_parser = whole(1_000..=100_000_000), allow_negative_numbers = true)]
    pub(crate) entities: u64,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// On what is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct GroundArgs {
    /// An empty store, a URL or a path; without it a new journal, removed at the end
    #[arg(long, value_name = "URL|PATH")]
    pub(crate) store: Option<String>,
    /// The folder for the new journal; without it that for temporary files
    #[arg(long, value_name = "FOLDER", conflicts_with = "store")]
    pub(crate) disk: Option<PathBuf>,
}
