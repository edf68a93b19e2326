//! Commands that come with an id, and how a repeated one is recognised: its events bear the tag
//! `$command:<id>`, and are looked for when the state is known and before anything is decided.
//!
//! That is exact. The look finds every event that was stored up to the state's version. If it
//! finds none of the command, and the append at that version succeeds, nothing came between.

use std::{any::Any, collections::VecDeque, fmt, sync::Arc};

use factum_kernel::{
    Aggregate, Attempts, EventId, LoadError, Metadata, QUERY_ITEMS_MAX, Query, QueryItem,
    RecordedEvent, Repository, StreamId, StreamVersion, Tag, Timestamp, Uuid,
};

use crate::{
    cell::{Blame, Letter},
    entity::{Entity, Failed, unwinding},
    message::Found,
};

/// The name of the tag that the events of a command bear whose repeats are recognised.
pub const COMMAND_TAG: &str = "$command";

/// The identity of a command, given by whoever sends it. A repeat carries the same id.
///
/// ```
/// use factum_runtime::CommandId;
///
/// // From what came with a request, such as the header `Idempotency-Key`.
/// let id = CommandId::derived(b"ada/order-17");
/// assert_eq!(id, CommandId::derived(b"ada/order-17"));
/// assert_eq!(id, CommandId::new(id.as_uuid()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(Uuid);

impl CommandId {
    /// The id with these bits.
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// An id that is a function of its source: the same source, the same id.
    pub fn derived(source: &[u8]) -> Self {
        Self(EventId::derived(Timestamp::EPOCH, source).as_uuid())
    }

    /// Its bits.
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }

    /// Metadata for its events: caused by it, and in the conversation that it begins, unless they
    /// say otherwise.
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

/// A reply of whatever type the caller wants.
pub(crate) type AnyReply = Box<dyn Any + Send + Sync>;

/// Computes a reply from the state after a command.
pub(crate) type ReplyFn<A> = Arc<dyn Fn(&A) -> AnyReply + Send + Sync>;

/// A command with all that can be said of it.
pub(crate) struct Order<A: Aggregate> {
    /// Shared with whoever may send it again.
    pub(crate) command: Arc<A::Command>,
    pub(crate) metadata: Metadata,
    /// None: a repeat is another command.
    pub(crate) once: Option<Once>,
    /// None: it is executed on whatever version there is.
    pub(crate) expected: Option<StreamVersion>,
    pub(crate) reply: Option<ReplyFn<A>>,
}

impl<A: Aggregate> Order<A> {
    /// A command that is recognised when it is sent again, and nothing else.
    pub(crate) fn once(command: A::Command, metadata: Metadata, id: CommandId) -> Self {
        let metadata = id.stamp(metadata);
        let once = Some(Once::new(id));
        Self { command: Arc::new(command), metadata, once, expected: None, reply: None }
    }

    pub(crate) fn tag(&self) -> Option<&Tag> {
        self.once.as_ref().map(|once| &once.0)
    }
}

/// By what the repeats of a command are recognised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Once(Tag);

impl Once {
    pub(crate) fn new(id: CommandId) -> Self {
        Self(Tag::new(COMMAND_TAG, id).expect("a short name and a UUID make a tag"))
    }

    /// What its events bear.
    pub(crate) fn into_tag(self) -> Tag {
        self.0
    }

    fn is_of(&self, event: &RecordedEvent) -> bool {
        event.tags().any(|tag| tag == self.0.as_str())
    }
}

/// Looks which commands of a burst are stored already. The state that they will be decided on must
/// be known. What can't be looked up is settled: to decide it could store it twice.
pub(crate) async fn look<A: Aggregate>(
    repository: &Repository<A>,
    stream: &StreamId,
    letters: &mut VecDeque<Letter<Entity<A>>>,
    attempts: &mut Attempts,
) {
    let unsettled = letters.iter().enumerate().filter(|(_, letter)| letter.settled.is_none());
    let orders: Vec<_> =
        unsettled.filter_map(|(at, letter)| Some((at, letter.message.once()?.clone()))).collect();
    for orders in orders.chunks(QUERY_ITEMS_MAX) {
        match unwinding(stream, find(repository, stream, orders, attempts)).await {
            Ok(found) => {
                for ((at, _), found) in orders.iter().zip(found) {
                    letters[*at].message.look_found(found);
                }
            }
            Err((failure, _)) => {
                orders.iter().for_each(|(at, _)| letters[*at].settled = Some(failure.clone()));
            }
        }
    }
}

async fn find<A: Aggregate>(
    repository: &Repository<A>,
    stream: &StreamId,
    orders: &[(usize, Once)],
    attempts: &mut Attempts,
) -> Result<Vec<Option<Found<A>>>, Failed> {
    let item = |(_, once): &(usize, Once)| QueryItem { types: vec![], tags: vec![once.0.clone()] };
    let query = Query::new(orders.iter().map(item));
    let recorded = repository.tagged(stream, query, attempts).await;
    let recorded = recorded.map_err(|error| (error.into(), Blame::Store))?;
    let found =
        orders.iter().map(|(_, once)| found_of(recorded.iter().filter(|it| once.is_of(it))));
    let found: Result<_, LoadError> = found.collect();
    found.map_err(|error| (error.into(), Blame::Entity))
}

/// What a command stored, of its events.
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
