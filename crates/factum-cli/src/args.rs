//! The command line: commands and options with units, defaults and limits, and their help.

mod advice;
mod consumers;
#[cfg(feature = "postgres")]
mod schema;

use std::{ffi::OsString, ops::RangeBounds};

use clap::{
    ArgAction, CommandFactory, Parser, Subcommand, ValueEnum, builder::RangedI64ValueParser,
    error::ErrorKind,
};
use factum::event::{
    Category, EventName, InvalidEventName, InvalidStreamId, InvalidTag, StreamId, Tag,
};

use crate::{
    exit::{Exit, Failure},
    output,
};

pub(crate) use self::consumers::{
    ConsumersArgs, ConsumersCommand, DeadLettersCommand, LetterArgs, LettersArgs, RewindArgs,
};
#[cfg(feature = "postgres")]
pub(crate) use self::schema::{ApplyArgs, PrintArgs, SchemaCommand};

const DEFAULT_STORE: &str = "./factum-data";

const AFTER_HELP: &str = "\
Examples:
  factum demo                                     a month in the life of a bank, in ./factum-data
  factum read --limit 5                           the first five events of that store
  factum read --stream account-ada-lovelace-1     the events of one account
  factum bench append --store sqlite:./bench.db   the rate of appends to SQLite on this disk
  factum bench append --store journal:./bench     the same for the embedded log
  factum stats --store ./data                     the state of the applications on a store
  factum consumers list --store ./data            the progress of its consumers
  factum dead-letters list --store ./data         the events that they could not handle
  factum verify --store ./data                    a check of a whole journal for damage
  factum schema print                             the SQL that creates a log in PostgreSQL

Stores:
  Every command names its store with --store. A store is a URL, memory:, sqlite:./events.db,
  journal:./data or postgres://user@host/database?schema=factum, or a path: the store that exists
  there is opened. Only demo, bench append and schema apply create a store that does not exist; for
  a path, which then begins with ./, ../ or /, a journal in that folder.

Exit codes:
    0  done; also when the program that read the output closed it
    1  a check failed: money is not conserved, the log has a hole, a journal is damaged
    2  the command line or the store's name is wrong, or the store does not exist
    3  the store is unavailable: try again
    4  the store is corrupt: stop, and examine it
    5  an internal error, or the output can't be written
  130  ended by Ctrl-C: the work in progress is finished; a second Ctrl-C ends at once
  143  ended by SIGTERM, in the same way

Environment:
  NO_COLOR  if set and not empty: no colours and no moving progress bar";

/// Inspect and try out Factum, an event sourcing framework.
#[derive(Debug, Parser)]
#[command(name = "factum", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Print only results and errors: no progress, no notes
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands of the program.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(DemoArgs),
    Read(ReadArgs),
    Stats(StatsArgs),
    /// List the consumers and projections of a store, or move a checkpoint
    #[command(subcommand, arg_required_else_help = false)]
    Consumers(ConsumersCommand),
    /// List, show, retry or discard events that a consumer could not handle
    #[command(subcommand, arg_required_else_help = false)]
    DeadLetters(DeadLettersCommand),
    /// Measure a store
    #[command(subcommand, arg_required_else_help = false)]
    Bench(BenchCommand),
    #[cfg(feature = "journal")]
    Verify(VerifyArgs),
    /// Renew a store's lineage, the identity of the history that its positions belong to
    #[cfg(any(feature = "journal", feature = "postgres"))]
    #[command(subcommand, arg_required_else_help = false)]
    Lineage(LineageCommand),
    /// Create the tables and functions of a log in PostgreSQL, or print their SQL
    #[cfg(feature = "postgres")]
    #[command(subcommand, arg_required_else_help = false)]
    Schema(SchemaCommand),
    /// Print the script with which a shell completes this program's commands and options
    #[command(after_help = "Example:\n  factum completions bash > /etc/bash_completion.d/factum")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Simulate a month in the life of a bank, then check every cent of it
///
/// Customers open accounts, deposit, withdraw and transfer money, and try overdrafts and e-mail
/// addresses that are taken. 16 writers race for the accounts; a writer that loses decides again.
/// At the end the whole log is folded again from its first event and checked: money is conserved,
/// positions are gapless, versions are contiguous, transfers are whole.
///
/// The month ends now; the times are the bank's, not those of the program's run. Another run
/// continues where the log ends, also after a crash, Ctrl-C (exit code 130) or SIGTERM (143).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: accounts, commands, events, rejections, conflicts_retried, conserved, gaps,
  total_cents, commands_per_s, read_models, and more. Commands, rejections and conflicts are those
  of this run. Accounts, events, gaps, cents and read models are those of the whole log, which the
  checks cover.

Examples:
  factum demo
  factum demo --store memory: --commands 50000 --seed 7
  factum demo --store sqlite:./bank.db --json | jq .conserved")]
pub(crate) struct DemoArgs {
    /// The store, a URL or a path
    #[arg(long, value_name = "URL|PATH", default_value = DEFAULT_STORE)]
    pub(crate) store: String,
    /// Accounts to open in this run, 0 to 1,000,000; no more than there are commands
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = whole(0..=1_000_000), allow_negative_numbers = true)]
    pub(crate) accounts: u64,
    /// Commands in this run, openings included, 0 to 100,000,000; 0 only checks a bank that exists
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    #[arg(value_parser = whole(0..=100_000_000), allow_negative_numbers = true)]
    pub(crate) commands: u64,
    /// Seed of the random plan; the same seed on a log that continues gives another month
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = seed, allow_negative_numbers = true)]
    pub(crate) seed: u64,
    /// Print one JSON object instead of the report
    #[arg(long)]
    pub(crate) json: bool,
}

/// Print events, one per line
///
/// Reading creates no store and writes to none, so it may run beside a program that writes. Reads
/// of the whole log and reads by tag or type leave out system events, unless --system is given.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, one line per event: position, version, stream, type, schema_version, content, id, recorded_at,
  tags, metadata, and data; for a payload that is neither CBOR nor JSON, data_hex instead of data,
  and neither for a deletion.
  Bytes inside data are written in hexadecimal.

Examples:
  factum read --category account --after 1000 --limit 20
  factum read --tag peer:ada-lovelace-1 --type account.sent
  factum read --hashed-tag email:ada-lovelace-1@example.org
  factum read --follow --json | jq .data")]
pub(crate) struct ReadArgs {
    /// The store, a URL or a path; it must exist
    #[arg(long, value_name = "URL|PATH", default_value = DEFAULT_STORE)]
    pub(crate) store: String,
    /// The whole log; this is the default
    #[arg(long, group = "scope")]
    pub(crate) log: bool,
    /// One stream, such as account-ada-lovelace-1
    #[arg(long, value_name = "ID", group = "scope", value_parser = stream)]
    pub(crate) stream: Option<StreamId>,
    /// All streams of a category, such as account
    #[arg(long, value_name = "NAME", group = "scope", value_parser = category)]
    pub(crate) category: Option<Category>,
    /// Events with this tag; of several tags (up to 64) an event must have all
    #[arg(long = "tag", value_name = "NAME:VALUE", value_parser = Tag::parse)]
    #[arg(conflicts_with = "scope", action = ArgAction::Append)]
    pub(crate) tags: Vec<Tag>,
    /// Events with this tag, whose value the store keeps as a hash with its own key
    #[arg(long = "hashed-tag", value_name = "NAME:VALUE", value_parser = HashedTag::parse)]
    #[arg(conflicts_with = "scope", action = ArgAction::Append)]
    pub(crate) hashed_tags: Vec<HashedTag>,
    /// Events of this type; of several types (up to 64) an event may have any
    #[arg(long = "type", value_name = "NAME", value_parser = event_name)]
    #[arg(conflicts_with = "scope", action = ArgAction::Append)]
    pub(crate) types: Vec<EventName>,
    /// Begin with the first event after this position; 0 begins at the start of the log
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    #[arg(value_parser = whole(0..i64::MAX), allow_negative_numbers = true)]
    pub(crate) after: u64,
    /// Stop after N events, at least 1; without it, at the end of the log
    #[arg(long, value_name = "N")]
    #[arg(value_parser = whole(1..), allow_negative_numbers = true)]
    pub(crate) limit: Option<u64>,
    /// Print each event in full, as a JSON object on a line
    #[arg(long)]
    pub(crate) json: bool,
    /// At the end wait for new events, until Ctrl-C (exit code 130), SIGTERM (143) or the limit
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Include system events, whose categories begin with $
    #[arg(long)]
    pub(crate) system: bool,
}

/// Show the state of the applications on a store
///
/// An application that is built with stats publishes them in its store at an interval: its
/// entities, workers and consumers, and the time since it opened. This command reads the stats that
/// were published last, also while the application runs, and the log's head. An application that
/// ended without removing its stats is shown with the time since it published them, until other
/// applications remove them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: store, head, instances (instance, process, written_at, silent_ms, silent,
  dead, every_ms, uptime_ms, total, kinds, workers, consumers).

Examples:
  factum stats --store ./data
  factum stats --store sqlite:./events.db --json | jq '.instances[].total.commands'")]
pub(crate) struct StatsArgs {
    /// The store, a URL or a path; it must exist
    #[arg(long, value_name = "URL|PATH")]
    pub(crate) store: String,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Check a whole journal: every frame, every law of the log, every entry of the index
///
/// Changes nothing without --repair. If another program writes the journal, the check ends where
/// that program's durable data end; otherwise no other program can open the journal during the
/// check. It takes as long as reading every file, and needs memory for one segment and its index
/// and about 50 bytes per stream.
///
/// A repair deletes nothing. It moves damaged files of the index to set-aside/TIME in the journal,
/// and the next opening builds them again. It ends a damaged log before its first damage: it sets
/// the rest aside there and gives the log a new lineage, so that consumers notice that positions
/// are given again. Because this takes acknowledged events out of the log, a repair without
/// --accept-loss only reports what it would do. If there is a backup, restoring it is better.
#[cfg(feature = "journal")]
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: store, verdict (whole or damaged), events, erased, streams, segments, runs,
  documents, bytes, beside_writer, lineage, torn, damage_count, damages (part, file, offset, from,
  through, what, remedy; the first 100), and repair (done, folder, files, events_lost,
  documents_lost, lineage, left) with --repair.

Exit codes: 0 whole, or whole again; 1 damaged; 2 there is no journal; 3 it can't be checked now.

Examples:
  factum verify --store ./data
  factum verify --store ./data --json | jq .damages
  factum verify --store ./data --repair
  factum verify --store ./data --repair --accept-loss")]
pub(crate) struct VerifyArgs {
    /// The journal, a URL or a path; it must exist
    #[arg(long, value_name = "URL|PATH")]
    pub(crate) store: String,
    /// Set damage aside, so that the journal opens again
    #[arg(long)]
    pub(crate) repair: bool,
    /// Let the repair take acknowledged events and documents out of the journal
    #[arg(long, requires = "repair")]
    pub(crate) accept_loss: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// The commands for a lineage.
#[cfg(any(feature = "journal", feature = "postgres"))]
#[derive(Debug, Subcommand)]
pub(crate) enum LineageCommand {
    /// Give a log a new lineage, so that consumers notice that its history is another
    ///
    /// Run it after a store was restored from a backup and before any program opens it: events that
    /// consumers have seen may be missing, and their positions are given again. Run it on the copy
    /// when a store was copied and both continue. Don't run it when a store was only moved:
    /// consumers stop after it, until they are rewound or rebuilt. Events, versions and documents
    /// stay as they are. A journal that is open is refused.
    #[command(after_help = "\
JSON, on the last line: store, lineage.

Examples:
  factum lineage renew --store ./restored
  factum lineage renew --store 'postgres://app@host/bank?schema=ledger'")]
    Renew {
        /// The journal or the PostgreSQL store, a URL or a path; it must exist
        #[arg(long, value_name = "URL|PATH")]
        store: String,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
}

/// The benchmarks.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    Append(AppendArgs),
    Read(BenchReadArgs),
}

/// Measure appends: many clients, each with one append in flight
///
/// Events hold random bytes, which no store can compress, and go to random streams of the category
/// `bench`. They expect no version, and nothing is retried. The output names the durability that
/// the store claims for an acknowledged append. A log that holds other events is refused, unless
/// --into-existing is given.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: bench, store, clients, events, batch, payload_bytes, streams, durability,
  seconds, events_per_s, p50_us and p99_us (of an append), bytes_per_event (growth on disk).

Examples:
  factum bench append --store memory: --events 1000000
  factum bench append --store sqlite:./bench.db --clients 16 --batch 100
  factum bench append --store journal:./bench")]
pub(crate) struct AppendArgs {
    /// The store, a URL or a path
    #[arg(long, value_name = "URL|PATH")]
    pub(crate) store: String,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Append even to a log that holds other events; the new events can't be removed again
    #[arg(long)]
    pub(crate) into_existing: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// The size of the appends and the number of clients.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LoadArgs {
    /// Clients that append at once, 1 to 100,000
    #[arg(long, value_name = "N", default_value_t = 256)]
    #[arg(value_parser = whole(1..=100_000), allow_negative_numbers = true)]
    pub(crate) clients: u64,
    /// Events to append, 1 to 10,000,000,000
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = whole(1..=10_000_000_000), allow_negative_numbers = true)]
    pub(crate) events: u64,
    /// Events per append, all in one stream, at least 1; most stores accept 4,096
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = whole(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) batch: u64,
    /// Bytes of each event's payload; most stores accept events of 1 MiB
    #[arg(long, value_name = "N", default_value_t = 256)]
    #[arg(value_parser = whole(0..=1 << 30), allow_negative_numbers = true)]
    pub(crate) payload_bytes: u64,
    /// Number of streams that the events are spread over, 1 to 1,000,000,000
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = whole(1..=1_000_000_000), allow_negative_numbers = true)]
    pub(crate) streams: u64,
}

/// Measure reads of a store
///
/// A scan reads the log from start to end, once per client. Streams are read whole, each once, in
/// random order, and divided among the clients. The store must exist, unless it is memory:. A store
/// without events is filled first, as `factum bench append` would do it; the measurement leaves
/// this out.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: bench (scan or streams), store, clients, events, seconds, events_per_s,
  p50_us and p99_us (of a page of a scan, of a whole stream), bytes_per_event (on disk).

Examples:
  factum bench read --store sqlite:./bench.db
  factum bench read --store memory: --what streams --events 300000")]
pub(crate) struct BenchReadArgs {
    /// The store, a URL or a path
    #[arg(long, value_name = "URL|PATH")]
    pub(crate) store: String,
    /// The kind of read
    #[arg(long, value_enum, default_value_t = What::Scan)]
    pub(crate) what: What,
    /// Clients that read at once, 1 to 100,000
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = whole(1..=100_000), allow_negative_numbers = true)]
    pub(crate) clients: u64,
    /// Events to fill an empty store with, 1 to 10,000,000,000
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = whole(1..=10_000_000_000), allow_negative_numbers = true)]
    pub(crate) events: u64,
    /// Bytes of the payloads that an empty store is filled with
    #[arg(long, value_name = "N", default_value_t = 256)]
    #[arg(value_parser = whole(0..=1 << 20), allow_negative_numbers = true)]
    pub(crate) payload_bytes: u64,
    /// Number of streams that an empty store is filled with, 1 to 1,000,000
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = whole(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) streams: u64,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// The kind of read that `factum bench read` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// The log, page by page
    Scan,
    /// Whole streams in random order
    Streams,
}

impl Args {
    /// Reads the command line. For help and the version it prints them and returns `PipeClosed`.
    pub(crate) fn read() -> Result<Self, Failure> {
        Self::parse_line(std::env::args_os())
    }

    fn parse_line(line: impl IntoIterator<Item = OsString>) -> Result<Self, Failure> {
        let line: Vec<_> = line.into_iter().collect();
        let error = match Self::try_parse_from(&line) {
            Ok(args) => return Ok(args),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => output::help(&error)?,
            // A line without a command asks for help. clap would print it to standard error.
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                return Self::parse_line(["factum".into(), "--help".into()]);
            }
            _ => {
                let text = advice::with_store(&line).unwrap_or_else(|| one_line(&error));
                return Err(Failure::new(Exit::Usage, text));
            }
        }
        // Help is a quiet end, as a closed pipe is.
        Err(Failure::PipeClosed)
    }
}

/// The script with which a shell completes the command line.
pub(crate) fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "factum", &mut script);
    script
}

/// The text of a clap error in one line. It leaves out the usage, which `--help` shows better; the
/// tip to pass an option as a value, because no value begins with dashes; and a store's URL at the
/// wrong place, which may hold a password.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let told =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let told = told.filter(|line| !line.starts_with("tip: to pass"));
    let told: Vec<_> = told.map(|line| line.trim_start_matches("error: ")).collect();
    let told = told.join(", ").replace(":,", ":");
    let is_url = |word: &str| ["://", "@", "password="].iter().any(|part| word.contains(part));
    let words = told.split(' ').map(|word| if is_url(word) { "'***'" } else { word });
    format!("{}; see factum --help", words.collect::<Vec<_>>().join(" "))
}

/// The name and the plain value of a tag whose value is stored as a hash.
#[derive(Debug, Clone)]
pub(crate) struct HashedTag {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl HashedTag {
    fn parse(text: &str) -> Result<Self, InvalidTag> {
        let tag = Tag::parse(text)?;
        Ok(Self { name: tag.name().to_owned(), value: tag.value().to_owned() })
    }
}

/// A whole number in a range. It is parsed as signed, so that a number below zero is out of range
/// and not malformed.
fn whole(range: impl RangeBounds<i64>) -> RangedI64ValueParser<u64> {
    RangedI64ValueParser::new().range(range)
}

fn seed(text: &str) -> Result<u64, String> {
    let number = text.parse::<i128>().map_err(|error| error.to_string())?;
    u64::try_from(number).map_err(|_| format!("{number} is not in 0..={}", u64::MAX))
}

fn stream(text: &str) -> Result<StreamId, InvalidStreamId> {
    text.parse()
}

fn category(text: &str) -> Result<Category, InvalidStreamId> {
    Category::parse(text)
}

fn event_name(text: &str) -> Result<EventName, InvalidEventName> {
    EventName::parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        let words = line.split_whitespace().map(OsString::from);
        match Args::parse_line(words) {
            Err(Failure::Stopped { exit: Exit::Usage, text }) => text,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        let lines = [
            ("factum demo --accounts x", "invalid value 'x' for '--accounts <N>'"),
            ("factum dmeo", "unrecognized subcommand 'dmeo'"),
            ("factum bench append", "--store <URL|PATH>"),
            ("factum bench", "requires a subcommand"),
            ("factum read --stream nodash", "no '-' between category and key"),
            ("factum read --log --tag a:b", "cannot be used with"),
            ("factum read --limit 0", "0 is not in 1.."),
            ("factum read --limit -3", "-3 is not in 1.."),
            ("factum read --after -1", "-1 is not in 0.."),
            ("factum demo --commands -5", "-5 is not in 0..=100000000"),
            ("factum demo --seed -1", "-1 is not in 0..=18446744073709551615"),
            ("factum bench append --store memory: --events -5", "-5 is not in 1..=10000000000"),
            ("factum read --hashed-tag nocolon", "invalid tag name"),
        ];
        for (line, expected) in lines {
            let text = refusal(line);
            assert!(text.contains(expected), "{line}: {text}");
            assert!(!text.contains('\n') && text.ends_with("; see factum --help"), "{text}");
        }
    }
}
