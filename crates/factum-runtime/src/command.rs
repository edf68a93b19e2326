//! Commands with an id, and the way in which a repeated command is recognised. The events of such a
//! command have the tag `$command:<id>`. The entity searches for them when its state is known and
//! before it decides anything.
//!
//! This is exact. The search finds every event that was stored up to the state's version. If it
//! finds none of the command, and the append at that version succeeds, no other append came in
//! between.

use std::{any::Any, collections::VecDeque, fmt, sync::Arc};

use factum_kernel::{
    Aggregate, Attempts, EventId, LoadError, Metadata, QUERY_ITEMS_MAX, Query, QueryItem,
    RecordedEvent, Repository, StreamId, StreamVersion, Tag, Timestamp, Uuid,
};

use crate::{
    cell::{Blame, Envelope},
    entity::{Entity, Failed, unwinding},
    message::Found,
};

/// The name of the tag on the events of commands whose repeats are recognised.
pub const COMMAND_TAG: &str = "$command";

/// The name of the tag on the events of a transaction or decision with an id. It differs from
/// [`COMMAND_TAG`], because the id of a command counts for one aggregate, and that of a transaction
/// for the whole log.
pub const TRANSACTION_TAG: &str = "$transaction";

/// The identity of a command, given by the sender. A repeat carries the same id.
///
/// ```
/// use factum_runtime::CommandId;
///
/// // From data of the request, such as the header `Idempotency-Key`.
/// let id = CommandId::derived(b"ada/order-17");
/// assert_eq!(id, CommandId::derived(b"ada/order-17"));
/// assert_eq!(id, CommandId::new(id.as_uuid()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(Uuid);

impl CommandId {
    /// The id with this UUID.
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// An id that is a function of its source: equal sources give equal ids.
    pub fn derived(source: &[u8]) -> Self {
        Self(EventId::derived(Timestamp::EPOCH, source).as_uuid())
    }

    /// The UUID of the id.
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }

    /// Completes the metadata of the command's events: the command is their cause and begins their
    /// conversation, unless the metadata names others.
    pub(crate) fn stamp(self, mut metadata: Metadata) -> Metadata {
        metadata.causation_id.get_or_insert(self.0);
        metadata.correlation_id.get_or_insert(self.0);
        metadata
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A reply of any type that the caller chose.
pub(crate) type AnyReply = Box<dyn Any + Send + Sync>;

/// Computes a reply from the state after a command.
pub(crate) type ReplyFn<A> = Arc<dyn Fn(&A) -> AnyReply + Send + Sync>;

/// A command with all its options.
pub(crate) struct EntityCommand<A: Aggregate> {
    /// Shared with layers that may send the command again.
    pub(crate) command: Arc<A::Command>,
    pub(crate) metadata: Metadata,
    /// `None`: a repeat is another command.
    pub(crate) once: Option<Once>,
    /// `None`: the command is executed on any version.
    pub(crate) expected: Option<StreamVersion>,
    pub(crate) reply: Option<ReplyFn<A>>,
}

impl<A: Aggregate> EntityCommand<A> {
    /// A command whose repeats are recognised, without further options.
    pub(crate) fn once(command: A::Command, metadata: Metadata, id: CommandId) -> Self {
        let metadata = id.stamp(metadata);
        let once = Some(Once::new(id));
        Self { command: Arc::new(command), metadata, once, expected: None, reply: None }
    }

    pub(crate) fn tag(&self) -> Option<&Tag> {
        self.once.as_ref().map(|once| &once.0)
    }
}

/// The tag by which the repeats of a command are recognised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Once(Tag);

impl Once {
    pub(crate) fn new(id: CommandId) -> Self {
        Self(Tag::new(COMMAND_TAG, id).expect("a short name and a UUID make a tag"))
    }

    fn is_of(&self, event: &RecordedEvent) -> bool {
        event.tags().any(|tag| tag == self.0.as_str())
    }
}

/// Searches the log for the commands of a burst that are stored already. The state on which the
/// burst will be decided must be known. A command whose search failed is settled with the failure,
/// because deciding it could store it twice.
pub(crate) async fn look<A: Aggregate>(
    repository: &Repository<A>,
    stream: &StreamId,
    envelopes: &mut VecDeque<Envelope<Entity<A>>>,
    attempts: &mut Attempts,
) {
    let unsettled = envelopes.iter().enumerate().filter(|(_, envelope)| envelope.settled.is_none());
    let commands: Vec<_> = unsettled
        .filter_map(|(at, envelope)| Some((at, envelope.message.once()?.clone())))
        .collect();
    for commands in commands.chunks(QUERY_ITEMS_MAX) {
        match unwinding(stream, find(repository, stream, commands, attempts)).await {
            Ok(found) => {
                for ((at, _), found) in commands.iter().zip(found) {
                    envelopes[*at].message.look_found(found);
                }
            }
            Err((failure, _)) => {
                commands.iter().for_each(|(at, _)| envelopes[*at].settled = Some(failure.clone()));
            }
        }
    }
}

async fn find<A: Aggregate>(
    repository: &Repository<A>,
    stream: &StreamId,
    commands: &[(usize, Once)],
    attempts: &mut Attempts,
) -> Result<Vec<Option<Found<A>>>, Failed> {
    let item = |(_, once): &(usize, Once)| QueryItem { types: vec![], tags: vec![once.0.clone()] };
    let query = Query::new(commands.iter().map(item));
    let recorded = repository.tagged(stream, query, attempts).await;
    let recorded = recorded.map_err(|error| (error.into(), Blame::Store))?;
    let found =
        commands.iter().map(|(_, once)| found_of(recorded.iter().filter(|it| once.is_of(it))));
    let found: Result<_, LoadError> = found.collect();
    found.map_err(|error| (error.into(), Blame::Entity))
}

/// Collects the events that a command stored.
fn found_of<'a, A: Aggregate>(
    recorded: impl Iterator<Item = &'a RecordedEvent>,
) -> Result<Option<Found<A>>, LoadError> {
    let mut events = Vec::new();
    let mut last = None;
    for event in recorded {
        events.extend(event.decode::<A::Event>()?);
        last = Some(event);
    }
    let found = |last: &RecordedEvent| (last.version(), last.position());
    Ok(last.map(found).map(|(version, position)| Found { version, position, events }))
}
