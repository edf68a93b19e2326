//! The command line: what can be asked, with units, defaults and limits, and its help.

mod advice;
mod consumers;
#[cfg(feature = "postgres")]
mod schema;

use std::{ffi::OsString, ops::RangeBounds};

use clap::{
    ArgAction, CommandFactory, Parser, Subcommand, ValueEnum, builder::RangedI64ValueParser,
    error::ErrorKind,
};
use factum::{Category, EventName, InvalidEventName, InvalidStreamId, InvalidTag, StreamId, Tag};

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
  factum read --limit 5                           the first five events of it
  factum read --stream account-ada-lovelace-1     the life of one account
  factum bench append --store sqlite:./bench.db   how fast this disk takes events
  factum bench append --store journal:./bench     the same for the embedded log
  factum stats --store ./data                     what the applications on it are doing
  factum consumers list --store ./data            how far its consumers have come
  factum dead-letters list --store ./data         what they could not handle
  factum verify --store ./data                    whether a journal is as it was written
  factum schema print                             the SQL that makes a log in PostgreSQL

Stores:
  Every command names its store with --store. A store is a URL, memory:, sqlite:./events.db,
  journal:./data or postgres://user@host/database?schema=factum, or a path: what is there is opened,
  else a journal is made in that folder.

Exit codes:
    0  done; also when whoever read the output closed it
    1  a check failed: money is not conserved, the log has a hole, a journal is damaged
    2  the command line or the store's name is wrong, or the store is not there
    3  the store is unavailable, try again
    4  the store is corrupt, stop and look
    5  an internal error, or the output can't be written
  130  ended by Ctrl-C: what was begun is finished; a second one ends at once
  143  ended by SIGTERM, in the same way

Environment:
  NO_COLOR  if set and not empty: no colours and no moving progress bar";

/// Look at and try out Factum, an event sourcing framework.
#[derive(Debug, Parser)]
#[command(name = "factum", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Say nothing but results and errors: no progress, no notes
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(DemoArgs),
    Read(ReadArgs),
    Stats(StatsArgs),
    /// See to the consumers and projections of a store
    #[command(subcommand, arg_required_else_help = false)]
    Consumers(ConsumersCommand),
    /// See to events that a consumer could not handle
    #[command(subcommand, arg_required_else_help = false)]
    DeadLetters(DeadLettersCommand),
    /// Measure a store
    #[command(subcommand, arg_required_else_help = false)]
    Bench(BenchCommand),
    #[cfg(feature = "journal")]
    Verify(VerifyArgs),
    /// See to a store's lineage: which history its positions belong to
    #[cfg(any(feature = "journal", feature = "postgres"))]
    #[command(subcommand, arg_required_else_help = false)]
    Lineage(LineageCommand),
    /// Make the tables and functions of a log in PostgreSQL, or print them
    #[cfg(feature = "postgres")]
    #[command(subcommand, arg_required_else_help = false)]
    Schema(SchemaCommand),
    /// Print what makes a shell complete this program's commands and options
    #[command(after_help = "Example:\n  factum completions bash > /etc/bash_completion.d/factum")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Live a month in the life of a bank, then check every cent of it
///
/// Opens accounts, pays in and out, transfers, tries overdrafts and e-mail addresses that are
/// taken; 16 writers race for the accounts, and those who lose decide again. Then everything is
/// folded again from the log alone and checked: money is conserved, positions are gapless,
/// versions are contiguous, transfers are whole.
///
/// The month ends now; times are the bank's, not those of the program's run. Run again, it goes on
/// where the log ends, also after a crash, Ctrl-C (exit code 130) or SIGTERM (143).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: accounts, commands, events, rejections, conflicts_retried, conserved, gaps,
  total_cents, commands_per_s, read_models, and more. Commands, rejections and conflicts are those
  of this run; accounts, events, gaps, cents and read models are those of the whole log, which is
  what the checks are about.

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
    /// Commands of this run, openings included, 0 to 100,000,000; 0: only check what must be there
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    #[arg(value_parser = whole(0..=100_000_000), allow_negative_numbers = true)]
    pub(crate) commands: u64,
    /// What decides who does what; the same seed on a log that goes on gives another month
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = seed, allow_negative_numbers = true)]
    pub(crate) seed: u64,
    /// Print one JSON object instead of the report
    #[arg(long)]
    pub(crate) json: bool,
}

/// Print events, a line each
///
/// Reading makes no store and writes to none, so it may run beside a program that does. The log
/// and its tags are read without the system's own events, unless asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, a line per event: position, version, stream, type, schema_version, content, id, recorded_at,
  tags, metadata, and data; for payloads that are neither CBOR nor JSON, data_hex instead of data.
  Bytes inside of data are written in hexadecimal.

Examples:
  factum read --category account --after 1000 --limit 20
  factum read --tag peer:ada-lovelace-1 --type account.sent
  factum read --hashed-tag email:ada-lovelace-1@example.org
  factum read --follow --json | jq .data")]
pub(crate) struct ReadArgs {
    /// The store, a URL or a path; it must be there
    #[arg(long, value_name = "URL|PATH", default_value = DEFAULT_STORE)]
    pub(crate) store: String,
    /// The whole log; so it is if nothing else is said
    #[arg(long, group = "scope")]
    pub(crate) log: bool,
    /// One stream, such as account-ada-lovelace-1
    #[arg(long, value_name = "ID", group = "scope", value_parser = stream)]
    pub(crate) stream: Option<StreamId>,
    /// All streams of a category, such as account
    #[arg(long, value_name = "NAME", group = "scope", value_parser = category)]
    pub(crate) category: Option<Category>,
    /// Events with this tag; given several times (up to 64), with all of them
    #[arg(long = "tag", value_name = "NAME:VALUE", value_parser = Tag::parse)]
    #[arg(conflicts_with = "scope", action = ArgAction::Append)]
    pub(crate) tags: Vec<Tag>,
    /// Events with this tag, whose value is stored hashed with the store's own key
    #[arg(long = "hashed-tag", value_name = "NAME:VALUE", value_parser = HashedTag::parse)]
    #[arg(conflicts_with = "scope", action = ArgAction::Append)]
    pub(crate) hashed_tags: Vec<HashedTag>,
    /// Events of this type; given several times (up to 64), of any of them
    #[arg(long = "type", value_name = "NAME", value_parser = event_name)]
    #[arg(conflicts_with = "scope", action = ArgAction::Append)]
    pub(crate) types: Vec<EventName>,
    /// Begin behind this position; 0: at the start
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    #[arg(value_parser = whole(0..i64::MAX), allow_negative_numbers = true)]
    pub(crate) after: u64,
    /// Stop after so many events, at least 1; without it, at the end
    #[arg(long, value_name = "N")]
    #[arg(value_parser = whole(1..), allow_negative_numbers = true)]
    pub(crate) limit: Option<u64>,
    /// Print a JSON object per line, in full
    #[arg(long)]
    pub(crate) json: bool,
    /// At the end wait for more, until Ctrl-C (exit code 130), SIGTERM (143) or the limit
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// The system's own events too, those of categories that begin with $
    #[arg(long)]
    pub(crate) system: bool,
}

/// Show what the applications on a store are doing
///
/// An application that is built with stats publishes them in its store, every so often: its
/// entities, its workers, its consumers, since when. This reads what was published last, also
/// beside the application, and the log's head. One that ended without a word is shown until the
/// others remove what it left, with how long it has been silent.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: store, head, instances (instance, process, written_at, silent_ms, dead,
  every_ms, uptime_ms, total, kinds, workers, consumers).

Examples:
  factum stats --store ./data
  factum stats --store sqlite:./events.db --json | jq '.instances[].total.commands'")]
pub(crate) struct StatsArgs {
    /// The store, a URL or a path; it must be there
    #[arg(long, value_name = "URL|PATH")]
    pub(crate) store: String,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Look through a whole journal: every frame, every law of the log, every entry of the index
///
/// Changes nothing without --repair. Beside a program that writes it looks as far as that one calls
/// durable; without one, none can open the journal meanwhile. Takes as long as reading every file
/// does, and memory for a segment and its index, and about 50 bytes per stream.
///
/// A repair deletes nothing. Damaged files of the index are moved to set-aside/TIME in the
/// journal, and made anew when it is opened. A damaged log ends before its first damage: what is
/// behind is set aside there, and the log gets a new lineage, so that consumers notice that
/// positions are given again. As that takes acknowledged events out of the log, it is only said
/// what would be done, unless --accept-loss is given. A backup is better, if there is one.
#[cfg(feature = "journal")]
#[derive(Debug, clap::Args)]
#[command(after_help = "\
JSON, on the last line: store, verdict (whole or damaged), events, erased, streams, segments, runs,
  documents, bytes, beside_writer, lineage, torn, damage_count, damages (part, file, offset, from,
  through, what, remedy; the first 100), and repair (done, folder, files, events_lost,
  documents_lost, lineage, left) if one was asked for.

Exit codes: 0 whole, or whole again; 1 damaged; 2 no journal is there; 3 it can't be looked at now.

Examples:
  factum verify --store ./data
  factum verify --store ./data --json | jq .damages
  factum verify --store ./data --repair
  factum verify --store ./data --repair --accept-loss")]
pub(crate) struct VerifyArgs {
    /// The journal, a URL or a path; it must be there
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

/// What can be done with a lineage.
#[cfg(any(feature = "journal", feature = "postgres"))]
#[derive(Debug, Subcommand)]
pub(crate) enum LineageCommand {
    /// Give a log a new lineage, so that consumers notice that its history is another
    ///
    /// After a store was restored from a backup, before anyone opens it: events that consumers saw
    /// may be missing, and their positions are given again. And on the copy, where a store was
    /// copied and both go on. Not where it was only moved: consumers begin anew after it. Events,
    /// versions and documents stay as they are. A journal is refused while it is open.
    #[command(after_help = "\
JSON, on the last line: store, lineage.

Examples:
  factum lineage renew --store ./restored
  factum lineage renew --store 'postgres://app@host/bank?schema=ledger'")]
    Renew {
        /// The journal or the PostgreSQL store, a URL or a path; it must be there
        #[arg(long, value_name = "URL|PATH")]
        store: String,
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    Append(AppendArgs),
    Read(BenchReadArgs),
}

/// Measure appends: many clients, each with one append under way
///
/// Events hold random bytes, which no store can compress, and go to random streams of the category
/// `bench` with any version expected. Nothing is retried. How durable an append is when it is
/// answered is the store's claim, and printed. A log that holds other events is refused, unless
/// asked.
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
    /// Append even to a log that holds events of others; they can't be taken out again
    #[arg(long)]
    pub(crate) into_existing: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is appended.
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
    /// Events per append, all in one stream, at least 1; most stores take 4,096
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = whole(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) batch: u64,
    /// Bytes of each event's payload; most stores take events of 1 MiB
    #[arg(long, value_name = "N", default_value_t = 256)]
    #[arg(value_parser = whole(0..=1 << 30), allow_negative_numbers = true)]
    pub(crate) payload_bytes: u64,
    /// Streams that the events are spread over, 1 to 1,000,000,000
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = whole(1..=1_000_000_000), allow_negative_numbers = true)]
    pub(crate) streams: u64,
}

/// Measure reads of what is there
///
/// A scan reads the log from start to end, once per client. Streams are read whole, each once, in
/// random order, shared out over the clients. The store must be there, or be memory: alone; one
/// without events is filled first, as `factum bench append` would; that takes no part in the
/// measurement.
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
    /// What is read
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
    /// Streams that an empty store is filled with, 1 to 1,000,000
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = whole(1..=1_000_000), allow_negative_numbers = true)]
    pub(crate) streams: u64,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `factum bench read` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// The log, page by page
    Scan,
    /// Whole streams in random order
    Streams,
}

impl Args {
    /// Reads the command line. Help and versions are printed; then there is nothing left to do.
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
            // Who says nothing asks for help; clap's own answer would go to standard error.
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                return Self::parse_line(["factum".into(), "--help".into()]);
            }
            _ => {
                let text = advice::with_store(&line).unwrap_or_else(|| one_line(&error));
                return Err(Failure::new(Exit::Usage, text));
            }
        }
        // Like a closed pipe, help is a quiet end.
        Err(Failure::PipeClosed)
    }
}

/// What makes a shell complete the command line.
pub(crate) fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "factum", &mut script);
    script
}

/// An error of clap's in one line: without its usage, which `--help` shows better, without the tip
/// to pass an option as a value, as no value begins with dashes, and without a store's URL at the
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

/// The name and value of a tag that is looked for by its hash.
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

/// A whole number in a range. Parsed as signed: one below zero is out of range, not ill-formed.
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
