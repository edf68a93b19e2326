//! What can be asked about consumers and their dead letters.

use clap::Subcommand;
use factum::{ConsumerName, InvalidStreamId, StreamId};

/// What can be done with consumers.
#[derive(Debug, Subcommand)]
pub(crate) enum ConsumersCommand {
    List(ConsumersArgs),
    Rewind(RewindArgs),
}

/// Show the consumers and projections that a store knows of
///
/// How far each has come as far as that is stored, whether it runs (or its process died while it
/// ran), and what is parked. Where a running application publishes its stats, also what each is
/// doing: its state, its position, how many events and how long it is behind. A consumer whose read
/// model is in another database keeps its progress there, and is seen only so. Looks beside a
/// program that runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: store, head, consumers (name, stored, position, lag, lag_ms, at_work,
  parked, orders, running). Where stored is false, the position is what was published. running, one
  for each process: state, was (what a silent one said), position, head, lag, lag_ms, parked,
  handled, cautious, committing_since, undropped, attempts, cause, process, instance, written_at,
  silent_ms.

Examples:
  factum consumers list --store ./data
  factum consumers list --store postgres://user@host/bank --json | jq '.consumers[] | .lag'")]
pub(crate) struct ConsumersArgs {
    /// The store, a URL or a path; it must be there
    #[arg(long, value_name = "URL|PATH")]
    pub(crate) store: String,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Let a consumer that does not run go on behind another position
///
/// The remedy when a consumer has stopped because the log is not the one that its checkpoint is
/// from, a restored backup for instance: choose a position that both logs share. Events behind it
/// are handled again. Documents keep what they hold, so a projection that adds up is better reset;
/// a model in memory is made anew, whatever the position. What is parked behind the position is
/// parked no more.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: store, consumer, position.

Examples:
  factum consumers rewind --store ./data mails --to 120000
  factum consumers rewind --store ./data orders@2 --to 0")]
pub(crate) struct RewindArgs {
    /// The store, a URL or a path; it must be there
    #[arg(long, value_name = "URL|PATH")]
    pub(crate) store: String,
    /// The consumer, named as `factum consumers list` does
    #[arg(value_name = "CONSUMER")]
    pub(crate) consumer: ConsumerName,
    /// The position behind which it goes on; 0: the log's beginning
    #[arg(long, value_name = "POSITION")]
    pub(crate) to: u64,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    List(LettersArgs),
    Show(LetterArgs),
    Retry(LetterArgs),
    Discard(LetterArgs),
}

/// List what is parked: the event that failed, why, and the stream that waits behind it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: store, dead_letters (consumer, stream, version, position, event, error,
  attempts, parked_at).

Example:
  factum dead-letters list --store ./data --consumer orders@1")]
pub(crate) struct LettersArgs {
    /// The store, a URL or a path; it must be there
    #[arg(long, value_name = "URL|PATH")]
    pub(crate) store: String,
    /// Only of this consumer, named as `factum consumers list` does, or of all its partitions
    #[arg(long, value_name = "NAME")]
    pub(crate) consumer: Option<String>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// One parked event: show it with what waits behind it, order it to be handled again, or to be
/// left out
///
/// An order is left in the store. A running consumer takes it within a second or so; one that does
/// not run, at its next start. A journal has one process that writes: while that runs, give the
/// order there, by ConsumerHandle::retry or ConsumerHandle::discard.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: store, consumer, stream; show: version, position, event, error, attempts,
  parked_at, blocked; retry, discard: ordered.

Examples:
  factum dead-letters show --store ./data orders@1 order-17
  factum dead-letters retry --store ./data orders@1 order-17
  factum dead-letters discard --store ./data orders@1 order-17")]
pub(crate) struct LetterArgs {
    /// The store, a URL or a path; it must be there
    #[arg(long, value_name = "URL|PATH")]
    pub(crate) store: String,
    /// The consumer, named as `factum consumers list` does; of its partitions the one that is meant
    #[arg(value_name = "CONSUMER")]
    pub(crate) consumer: String,
    /// The stream that waits
    #[arg(value_name = "STREAM", value_parser = stream)]
    pub(crate) stream: StreamId,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

fn stream(text: &str) -> Result<StreamId, InvalidStreamId> {
    text.parse()
}
