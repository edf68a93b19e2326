//! The identity of a command: the id that its sender gave it, and the record of what the id names.
//!
//! The events of a command with an id have the tag `$command:<id>`, by which a repeat finds them.
//! The first of them has an entry in its metadata that says which command the id names. So a
//! repeat, which is answered without being decided, is compared with the command that was stored.

use std::{borrow::Cow, fmt};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    codec::CodecError,
    digest::digest_of_content,
    event::NewEvent,
    id::EventId,
    kind::ErrorKind,
    metadata::METADATA_TEXT_BYTES_MAX,
    recorded::RecordedEvent,
    schema::{Command, EncodeError},
    tag::{Tag, TagKey},
    time::Timestamp,
};

/// The name of the tag on the events of commands with an id, and of the entry in the metadata of
/// the first of them.
pub const COMMAND_TAG: &str = "$command";
/// The target of a decision over a query, which has no stream of its own.
const DECISION: &str = "$decision";
/// The most bytes of the lines of an entry. The line that stands for further commands has room
/// after them.
const LINES_BYTES_MAX: usize = METADATA_TEXT_BYTES_MAX - 64;

/// The identity of a command, given by the sender. A repeat carries the same id.
///
/// An id names one command, or one transaction or decision, in the log. So an id has two parts: its
/// cause, and the purpose of the command. Two policies that react to one event send two commands,
/// and each needs an id of its own.
///
/// ```
/// use factum_kernel::CommandId;
///
/// // The cause is the id of an event, or data of the request, such as `Idempotency-Key`.
/// let deposit = CommandId::derived("order-17", "deposit");
/// assert_eq!(deposit, CommandId::derived("order-17", "deposit"));
/// assert_ne!(deposit, CommandId::derived("order-17", "bonus"));
/// assert_eq!(deposit, CommandId::new(deposit.as_uuid()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(Uuid);

impl CommandId {
    /// The id with this UUID.
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// An id that is a function of a cause and a purpose: the same two give the same id. The cause
    /// is an [`EventId`], another `CommandId`, a text or bytes. The purpose says what the command
    /// is for, such as `welcome-bonus`: every sender that reacts to the cause has its own.
    ///
    /// # Panics
    /// If the purpose is empty.
    pub fn derived(cause: impl AsRef<[u8]>, purpose: &str) -> Self {
        assert!(!purpose.is_empty(), "an id is derived from a cause and a purpose");
        let cause = cause.as_ref();
        // The length keeps the two apart: "ab" and "c" is not "a" and "bc".
        let source = [&(cause.len() as u64).to_le_bytes(), cause, purpose.as_bytes()].concat();
        Self(EventId::derived(Timestamp::EPOCH, &source).as_uuid())
    }

    /// The UUID of the id.
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl AsRef<[u8]> for CommandId {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A command that an id names: its target, stored name, schema version and content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedCommand {
    target: Box<str>,
    name: Cow<'static, str>,
    schema_version: u32,
    /// The digest of the content; in a stored one, the keyed hash of the digest. `None`: unknown.
    content: Option<u64>,
}

impl NamedCommand {
    /// A command for the aggregate with this category and key.
    ///
    /// # Errors
    /// The command can't be serialised.
    pub fn of_aggregate<C: Command>(
        category: &str,
        key: &str,
        command: &C,
    ) -> Result<Self, EncodeError> {
        Self::of(format!("{category}-{key}").into(), command)
    }

    /// A command for a decision model. A model has no stored name, so the command alone names the
    /// decision: a type of commands belongs to one model.
    ///
    /// # Errors
    /// The command can't be serialised.
    pub fn of_model<C: Command>(command: &C) -> Result<Self, EncodeError> {
        Self::of(DECISION.into(), command)
    }

    fn of<C: Command>(target: Box<str>, command: &C) -> Result<Self, EncodeError> {
        let name = command.name();
        let content = digest_of_content(command)
            .map_err(|no| EncodeError::Command { name, reason: CodecError::new(no) })?;
        let name = Cow::Borrowed(name);
        let schema_version = C::SCHEMA_VERSION;
        Ok(Self { target, name, schema_version, content: Some(content) })
    }

    /// The target: the stream of the aggregate, or `$decision`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The stored name of the command.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of the command's schema.
    pub fn schema_version(&self) -> u32 {
        self.schema_version
    }

    /// The command as it is stored and compared: with the keyed hash of its content.
    fn sealed(&self, key: Option<&TagKey>) -> Self {
        let seal = |digest: u64| Some(key?.seal(COMMAND_TAG, &digest.to_le_bytes()));
        Self { content: self.content.and_then(seal), ..self.clone() }
    }

    /// True if both are one command. Contents are compared only at the same schema version.
    fn is(&self, other: &Self) -> bool {
        let is_comparable = self.schema_version == other.schema_version;
        let contents = self.content.zip(other.content).filter(|_| is_comparable);
        self.target == other.target
            && self.name == other.name
            && contents.is_none_or(|(one, other)| one == other)
    }

    /// One line of the stored form: name, schema version, content and target, with tabs in between.
    /// Neither names nor keys hold control characters.
    fn line(&self) -> String {
        let Self { target, name, schema_version, content } = self;
        let content = content.map_or_else(String::new, |content| format!("{content:016x}"));
        format!("{name}\t{schema_version}\t{content}\t{target}\n")
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        let name = Cow::Owned(fields.next()?.to_owned());
        let schema_version = fields.next()?.parse().ok()?;
        let content = match fields.next()? {
            "" => None,
            content => Some(u64::from_str_radix(content, 16).ok()?),
        };
        let target = fields.next()?.into();
        fields.next().is_none().then_some(Self { target, name, schema_version, content })
    }
}

impl fmt::Display for NamedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.name, self.target)
    }
}

/// The error for an id that names another command in the log. Nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the id names another command, derive an id from its cause and purpose: id={id} \
     stored={stored} sent={sent}{but}",
    stored = Listed(stored), sent = Listed(sent), but = self.but()
)]
pub struct IdTaken {
    /// The id.
    pub id: CommandId,
    /// The commands that the log has under the id. Of a transaction with very many steps, the first
    /// ones.
    pub stored: Box<[NamedCommand]>,
    /// The commands that were sent with the id.
    pub sent: Box<[NamedCommand]>,
}

impl IdTaken {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    /// Names a difference that the names and targets don't show.
    fn but(&self) -> &'static str {
        let is_same = |(one, other): (&NamedCommand, &NamedCommand)| {
            one.target == other.target && one.name == other.name
        };
        let is_alike = self.stored.len() == self.sent.len();
        match is_alike && self.stored.iter().zip(&self.sent).all(is_same) {
            true => ", with another content",
            false => "",
        }
    }
}

/// Commands for people, such as `[account.send on account-ada, account.receive on account-bob]`.
struct Listed<'a>(&'a [NamedCommand]);

/// The most commands that an error lists.
const LISTED_MAX: usize = 4;

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (at, command) in self.0.iter().take(LISTED_MAX).enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{command}")?;
        }
        match self.0.len().saturating_sub(LISTED_MAX) {
            0 => f.write_str("]"),
            more => write!(f, ", and {more} more]"),
        }
    }
}

/// An id, and the commands that it names: one, or those of all steps of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    id: CommandId,
    tag: Tag,
    commands: Box<[NamedCommand]>,
}

impl Once {
    /// The id of these commands.
    pub fn new(id: CommandId, commands: impl IntoIterator<Item = NamedCommand>) -> Self {
        let tag = Tag::new(COMMAND_TAG, id).expect("a short name and a UUID make a tag");
        Self { id, tag, commands: commands.into_iter().collect() }
    }

    /// The id.
    pub fn id(&self) -> CommandId {
        self.id
    }

    /// The tag on all events of the commands.
    pub fn tag(&self) -> &Tag {
        &self.tag
    }

    /// Writes into the first event which commands the id names.
    pub(crate) fn sign(&self, first: &mut NewEvent, key: Option<&TagKey>) {
        let entry = Entry::write(&self.commands, key);
        first.metadata.extra.insert(COMMAND_TAG.into(), entry.into());
    }

    /// Returns the events of these commands among those that the log has under the id, oldest
    /// first; none if the commands were never stored.
    ///
    /// The first events may not say which commands the id names: an earlier version of Factum
    /// stored them, or the first one was erased. They are those of a command on an aggregate, if
    /// they are on its stream. A transaction or a decision does not take them, because in earlier
    /// versions this tag was only on the events of commands. Events whose entry a later version of
    /// Factum wrote in another form are those of the commands on whose targets they are.
    ///
    /// # Errors
    /// The id names other commands.
    pub fn recognise<'e>(
        &self,
        events: impl Iterator<Item = &'e RecordedEvent>,
        key: Option<&TagKey>,
    ) -> Result<Vec<&'e RecordedEvent>, IdTaken> {
        let mut owner = Owner::Unknown;
        let mut named = Vec::new();
        let mut unknown = Vec::new();
        let mut other = None;
        for event in events {
            // The events of one append have consecutive positions, and the first has the entry.
            owner = match Entry::read(event) {
                None => owner,
                Some(None) => Owner::Unreadable,
                Some(Some(entry)) if entry.is_of(&self.commands, key) => Owner::These,
                Some(Some(entry)) => {
                    other = other.or(Some(entry.first));
                    Owner::Others
                }
            };
            let stream = event.stream();
            match owner {
                Owner::These => named.push(event),
                Owner::Unknown if self.is_one_on(stream.as_str()) => unknown.push(event),
                Owner::Unreadable if self.is_for(stream.as_str()) => unknown.push(event),
                Owner::Unknown | Owner::Unreadable | Owner::Others => {}
            }
        }
        let found = if named.is_empty() { unknown } else { named };
        match other {
            Some(stored) if found.is_empty() => {
                // Sealed, because errors go into logs.
                let sent = self.commands.iter().map(|command| command.sealed(key)).collect();
                Err(IdTaken { id: self.id, stored: stored.into(), sent })
            }
            _ => Ok(found),
        }
    }

    /// True if the id names one command, on the aggregate with this stream.
    fn is_one_on(&self, stream: &str) -> bool {
        matches!(&*self.commands, [command] if *command.target == *stream)
    }

    /// True if one of the commands may write to the stream.
    fn is_for(&self, stream: &str) -> bool {
        self.commands.iter().any(|it| *it.target == *DECISION || *it.target == *stream)
    }
}

/// The commands that an event is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// No event so far names its commands.
    Unknown,
    /// This version can't read which commands they are.
    Unreadable,
    These,
    Others,
}

/// The entry in the metadata of the first event: a line for each command that the id names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    first: Vec<NamedCommand>,
    further: Option<Further>,
}

/// The commands of a very long transaction for which the entry has no room.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Further {
    count: usize,
    /// A hash of their names and targets.
    hash: String,
}

impl Entry {
    /// The stored form of an entry for these commands.
    fn write(commands: &[NamedCommand], key: Option<&TagKey>) -> String {
        let mut text = String::new();
        for (at, command) in commands.iter().enumerate() {
            let line = command.sealed(key).line();
            if text.len() + line.len() > LINES_BYTES_MAX {
                let Further { count, hash } = Further::of(&commands[at..]);
                return format!("{text}\t{count}\t{hash}");
            }
            text.push_str(&line);
        }
        text
    }

    /// The entry of an event, if it has one; `Some(None)` if this version can't read it.
    fn read(event: &RecordedEvent) -> Option<Option<Self>> {
        if event.parts().metadata.is_empty() {
            return None;
        }
        event.metadata().extra.get(COMMAND_TAG).map(|entry| Self::parse(entry))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut entry = Self { first: Vec::new(), further: None };
        for line in text.lines() {
            match line.strip_prefix('\t') {
                Some(further) => entry.further = Some(Further::parse(further)?),
                None => entry.first.push(NamedCommand::parse(line)?),
            }
        }
        (!entry.first.is_empty()).then_some(entry)
    }

    /// True if the entry is of these commands.
    fn is_of(&self, commands: &[NamedCommand], key: Option<&TagKey>) -> bool {
        let Some((first, further)) = commands.split_at_checked(self.first.len()) else {
            return false;
        };
        let further = (!further.is_empty()).then(|| Further::of(further));
        let mut both = self.first.iter().zip(first);
        both.all(|(stored, sent)| stored.is(&sent.sealed(key))) && self.further == further
    }
}

impl Further {
    fn of(commands: &[NamedCommand]) -> Self {
        let mut hash = Sha256::new();
        for NamedCommand { target, name, .. } in commands {
            hash.update(format!("{name}\t{target}\n"));
        }
        let hash = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self { count: commands.len(), hash }
    }

    fn parse(text: &str) -> Option<Self> {
        let (count, hash) = text.split_once('\t')?;
        Some(Self { count: count.parse().ok()?, hash: hash.into() })
    }
}

#[cfg(test)]
mod tests;
