//! The command line of `factum bench project`.

use super::{GroundArgs, whole};

/// Measure projections: read models made anew out of the log, and how soon they show an append
///
/// A read model holds the balance of every account. In memory, its rate is set beside a plain scan
/// of the log; in SQLite and PostgreSQL, beside the same upserts without projection, in
/// transactions of the same size. All are measured in turn, round by round; what counts are the
/// medians. Then single events are appended, and the time from an append's answer to the model in
/// memory that shows it is taken.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: bench, store, events, payload_bytes, streams, batch, rounds; scan_per_s,
  memory_per_s, memory_ratio, documents_per_s, partitions, documents_partitioned_per_s,
  documents_partitioned_ratio (to documents); sqlite_per_s, sqlite_bare_per_s, sqlite_ratio;
  postgres_per_s, postgres_bare_per_s, postgres_ratio, postgres_partitioned_per_s,
  postgres_partitioned_ratio (to postgres; with --postgres); p50_us, p99_us (of what
  an append takes to be seen, after its answer).

Examples:
  factum bench project
  factum bench project --disk /dev/shm --rounds 5 --json | jq .memory_ratio
  factum bench project --postgres postgres://app@localhost/models")]
pub(crate) struct ProjectArgs {
    #[command(flatten)]
    pub(crate) ground: GroundArgs,
    /// The PostgreSQL database of a read model; its table factum_bench is made anew
    #[cfg(feature = "postgres")]
    #[arg(long, value_name = "URL")]
    pub(crate) postgres: Option<String>,
    /// Events to project, 1 to 1,000,000,000
    #[arg(long, value_name = "N", default_value_t = 300_000)]
    #[arg(value_parser = whole(1..=1_000_000_000), allow_negative_numbers = true)]
    pub(crate) events: u64,
    /// Bytes of text in each of these events
    #[arg(long, value_name = "N", default_value_t = 256)]
    #[arg(value_parser = whole(0..=1 << 20), allow_negative_numbers = true)]
    pub(crate) payload_bytes: u64,
    /// Accounts that they are spread over, 1 to 1,000,000
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = whole(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) streams: u64,
    /// The most events of a transaction, 1 to 100,000
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = whole(1..=100_000), allow_negative_numbers = true)]
    pub(crate) batch: u64,
    /// Partitions of the read models that are made in parallel, 2 to 64
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = whole(2..=64), allow_negative_numbers = true)]
    pub(crate) partitions: u64,
    /// Rounds, 1 to 100
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = whole(1..=100), allow_negative_numbers = true)]
    pub(crate) rounds: u64,
    /// Appends whose way to the model in memory is timed, 0 to 1,000,000
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    #[arg(value_parser = whole(0..=1_000_000), allow_negative_numbers = true)]
    pub(crate) appends: u64,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}
