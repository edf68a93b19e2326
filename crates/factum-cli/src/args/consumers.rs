//! The arguments of the commands for consumers and their dead letters.

use clap::Subcommand;
use factum::{
    consumer::ConsumerName,
    event::{InvalidStreamId, StreamId},
};

/// The commands for consumers.
#[derive(Debug, Subcommand)]
pub(crate) enum ConsumersCommand {
    List(ConsumersArgs),
    Rewind(RewindArgs),
}

/// Show the consumers and projections of a store
///
/// Shows the stored progress of each consumer, how many events it has still to handle, and whether
/// it is at work or its process died. Shows also its parked events, and the streams that wait for a
/// program that can read their next event. If a running application publishes its stats, the
/// command shows the present state, position and lag of the consumer in each process. A consumer
/// whose read model is in another database stores its progress there, so only published stats show
/// it. The command may run beside the application.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: store, head, consumers (name, stored, position, lag, lag_ms, diverged,
  at_work, died, process, parked, waiting, orders, running). lag is the number of events that the
  consumer wants after its position; null if it is unknown, because the consumer has diverged. If
  stored is false, the position is the published one. waiting is the number of streams that wait for
  a program that can read them, orders that of the retries and discards not carried out yet. running
  is an array with an object for each process: state, was (the last state of a silent process),
  position, head, lag, lag_ms, parked, waiting, unread, handled, cautious, committing_since,
  undropped, heartbeat_error, snapshot_error, attempts, cause, process, instance, written_at,
  silent_ms.

Examples:
  factum consumers list --store ./data
  factum consumers list --store postgres://user@host/bank --json | jq '.consumers[] | .lag'")]
pub(crate) struct ConsumersArgs {
    /// The store, a URL or a path; it must exist
    #[arg(long, value_name = "URL|PATH")]
    pub(crate) store: String,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Move the checkpoint of a consumer that does not run
///
/// Use this when a consumer has stopped because the log is not the one in which its checkpoint was
/// made, for instance after a backup was restored: choose a position that both logs share. The
/// consumer handles the events after it again. Documents keep their content, so reset a projection
/// that keeps sums instead; an in-memory model is built again, whatever the position. Events that
/// were parked after the position are no longer parked.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: store, consumer, position.

Examples:
  factum consumers rewind --store ./data mails --to 120000
  factum consumers rewind --store ./data orders@2 --to 0")]
pub(crate) struct RewindArgs {
    /// The store, a URL or a path; it must exist
    #[arg(long, value_name = "URL|PATH")]
    pub(crate) store: String,
    /// The consumer, by its name in `factum consumers list`
    #[arg(value_name = "CONSUMER")]
    pub(crate) consumer: ConsumerName,
    /// Resume with the first event after this position; 0 replays the whole log
    #[arg(long, value_name = "POSITION")]
    pub(crate) to: u64,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// The commands for dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    List(LettersArgs),
    /// Show a parked event and the number of events that wait for it
    Show(LetterArgs),
    /// Order that a consumer handles a parked event again
    ///
    /// The order is left in the store. A running consumer follows it within about a second; a
    /// stopped consumer follows it when it starts again.
    Retry(LetterArgs),
    /// Order that a consumer leaves a parked event out
    ///
    /// The order is left in the store. A running consumer follows it within about a second; a
    /// stopped consumer follows it when it starts again.
    Discard(LetterArgs),
}

/// List the parked events with their errors, and those that wait for a program that can read them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: store, dead_letters (consumer, stream, version, position, event, error,
  attempts, parked_at, unread).

Example:
  factum dead-letters list --store ./data --consumer orders@1")]
pub(crate) struct LettersArgs {
    /// The store, a URL or a path; it must exist
    #[arg(long, value_name = "URL|PATH")]
    pub(crate) store: String,
    /// Only this consumer, by its name in `factum consumers list`, or all partitions of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) consumer: Option<String>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// The arguments that name a parked event.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: store, consumer, stream; show: version, position, event, error, attempts,
  parked_at, unread, blocked; retry, discard: ordered.

Examples:
  factum dead-letters show --store ./data orders@1 order-17
  factum dead-letters retry --store ./data orders@1 order-17
  factum dead-letters discard --store ./data orders@1 order-17")]
pub(crate) struct LetterArgs {
    /// The store, a URL or a path; it must exist
    #[arg(long, value_name = "URL|PATH")]
    pub(crate) store: String,
    /// The consumer, by its name in `factum consumers list`; the name without a partition is enough
    #[arg(value_name = "CONSUMER")]
    pub(crate) consumer: String,
    /// The stream of the parked event
    #[arg(value_name = "STREAM", value_parser = stream)]
    pub(crate) stream: StreamId,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

fn stream(text: &str) -> Result<StreamId, InvalidStreamId> {
    text.parse()
}
