//! Commands with an id, and the way in which a repeated command is recognised. The events of such a
//! command have the tag `$command:<id>`. The entity searches for them when its state is known and
//! before it decides anything. If the id names another command, the message is settled with the
//! error.
//!
//! This is exact. The search finds every event that was stored up to the state's version. If it
//! finds none of the command, and the append at that version succeeds, no other append came in
//! between.

use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use factum_kernel::{
    Aggregate, Attempts, Command, CommandId, EncodeError, LoadError, Metadata, NamedCommand, Once,
    QUERY_ITEMS_MAX, Query, QueryItem, RecordedEvent, Repository, StreamId, StreamVersion,
};

use crate::{
    cell::{Blame, Envelope},
    entity::{Entity, Failed, died, unwinding},
    error::EntityError,
    message::Found,
};

/// Completes the metadata of a command's events: the command is their cause and begins their
/// conversation, unless the metadata names others.
pub(crate) fn stamp(id: CommandId, mut metadata: Metadata) -> Metadata {
    metadata.causation_id.get_or_insert(id.as_uuid());
    metadata.correlation_id.get_or_insert(id.as_uuid());
    metadata
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

impl<A: Aggregate<Command: Command>> EntityCommand<A> {
    /// A command whose repeats are recognised, without further options.
    pub(crate) fn once(
        key: &str,
        command: A::Command,
        metadata: Metadata,
        id: CommandId,
    ) -> Result<Self, EncodeError> {
        let metadata = stamp(id, metadata);
        let named = NamedCommand::of_aggregate(A::CATEGORY, key, &command)?;
        let once = Some(Once::new(id, [named]));
        Ok(Self { command: Arc::new(command), metadata, once, expected: None, reply: None })
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
                    match found {
                        Ok(found) => envelopes[*at].message.look_found(found),
                        Err(failure) => envelopes[*at].settled = Some(failure),
                    }
                }
            }
            Err((failure, _)) => {
                commands.iter().for_each(|(at, _)| envelopes[*at].settled = Some(failure.clone()));
            }
        }
    }
}

/// Searches for the commands with one query. Each command has its own result: events that can't be
/// decoded concern the command that stored them.
async fn find<A: Aggregate>(
    repository: &Repository<A>,
    stream: &StreamId,
    commands: &[(usize, Once)],
    attempts: &mut Attempts,
) -> Result<Vec<Result<Option<Found<A>>, EntityError>>, Failed> {
    let tags = commands.iter().map(|(_, once)| vec![once.tag().clone()]);
    let query = Query::new(tags.map(|tags| QueryItem { types: vec![], tags }));
    let kernel = repository.kernel();
    let recorded = kernel.tagged(query, attempts).await;
    let recorded = recorded.map_err(|error| (error.into(), Blame::Store))?;
    let found = commands.iter().map(|(_, once)| {
        let is_tagged = |event: &&RecordedEvent| event.tags().any(|tag| tag == once.tag().as_str());
        let recorded = recorded.iter().filter(is_tagged);
        let events = once.recognise(recorded, kernel.tag_key())?;
        let ours = events.into_iter().filter(|event| event.stream() == *stream);
        let decoded = catch_unwind(AssertUnwindSafe(|| found_of(ours)));
        Ok(decoded.map_err(|panic| died(stream, &*panic))??)
    });
    Ok(found.collect())
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
