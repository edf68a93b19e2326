//! The effect that each command has on the store that it names.

#[cfg(any(feature = "journal", feature = "postgres"))]
use crate::args::LineageCommand;
#[cfg(feature = "postgres")]
use crate::args::SchemaCommand;
use crate::args::{BenchCommand, Command, ConsumersCommand, DeadLettersCommand};

/// The effect of a command on its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The command reads a store that exists. It makes and changes nothing.
    Reads,
    /// The command changes a store that exists. It makes none. Beside an application that writes a
    /// journal, the application makes the change.
    Changes,
    /// The command works on a store that exists as an application does. It makes none. A journal
    /// that an application writes is refused.
    Uses,
    /// The command makes the store if it does not exist.
    Makes,
    /// The command names no store.
    NoStore,
}

impl Command {
    /// The table of all commands. Stores are opened by it: see [`Place::open`].
    ///
    /// [`Place::open`]: crate::place::Place::open
    pub(crate) fn effect(&self) -> Effect {
        match self {
            Self::Read(_) | Self::Stats(_) => Effect::Reads,
            Self::Consumers(ConsumersCommand::List(_)) => Effect::Reads,
            Self::Consumers(ConsumersCommand::Rewind(_)) => Effect::Changes,
            Self::DeadLetters(DeadLettersCommand::List(_) | DeadLettersCommand::Show(_)) => {
                Effect::Reads
            }
            Self::DeadLetters(DeadLettersCommand::Retry(_) | DeadLettersCommand::Discard(_)) => {
                Effect::Changes
            }
            // Without commands it only checks. A mistyped path must not become an empty bank that
            // passes every check.
            Self::Demo(demo) if demo.commands == 0 => of_existing(&demo.store),
            Self::Demo(_) | Self::Bench(BenchCommand::Append(_)) => Effect::Makes,
            // A store without events is filled.
            Self::Bench(BenchCommand::Read(read)) => of_existing(&read.store),
            #[cfg(feature = "journal")]
            Self::Verify(verify) if verify.repair => Effect::Changes,
            #[cfg(feature = "journal")]
            Self::Verify(_) => Effect::Reads,
            #[cfg(any(feature = "journal", feature = "postgres"))]
            Self::Lineage(LineageCommand::Renew { .. }) => Effect::Changes,
            #[cfg(feature = "postgres")]
            Self::Schema(SchemaCommand::Apply(_)) => Effect::Makes,
            #[cfg(feature = "postgres")]
            Self::Schema(SchemaCommand::Print(_)) => Effect::NoStore,
            Self::Completions { .. } => Effect::NoStore,
        }
    }
}

/// The effect on a store that must exist. A store in memory is always a new one.
fn of_existing(store: &str) -> Effect {
    if store == "memory:" { Effect::Makes } else { Effect::Uses }
}
