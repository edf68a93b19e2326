//! The contents of a cell for a typed entity, and the work on a burst: decide, load and store.

use std::{
    any::Any,
    collections::{HashSet, VecDeque},
    future::{Future, poll_fn},
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
};

use factum_kernel::{
    Aggregate, Appended, Attempts, Committing, Draft, LoadError, Once, Repository, StoreError,
    StoreErrorKind, StreamId, Tail,
};

use crate::{
    cell::{Appending, Blame, CatchUp, Decided, Effect, Envelope, Parts, Verdict},
    error::EntityError,
    message::{Decision, Message, failure_of},
};

/// The cell's type parameters for one kind of aggregate.
pub(crate) struct Entity<A>(PhantomData<A>);

impl<A: Aggregate> Parts for Entity<A> {
    // Boxed, because a message is moved often on its way through the cell.
    type Message = Box<Message<A>>;
    type State = Box<Resident<A>>;
    type Failure = EntityError;
    type Rejection = A::Rejection;

    fn quarantined(cause: &EntityError) -> EntityError {
        EntityError::Quarantined { cause: Box::new(cause.clone()) }
    }
}

/// An aggregate in memory.
pub(crate) struct Resident<A: Aggregate> {
    pub(crate) draft: Draft<A>,
    /// The weight in bytes, as the aggregate counts it.
    pub(crate) weight: usize,
}

pub(crate) type Failed = (EntityError, Blame);

/// Decides the messages of a burst in order, up to the first that must wait for the next burst.
pub(crate) fn decide<A: Aggregate>(
    repository: &Repository<A>,
    stream: &StreamId,
    mut state: Box<Resident<A>>,
    mut envelopes: VecDeque<Envelope<Entity<A>>>,
) -> Decided<Entity<A>> {
    let draft = &mut state.draft;
    draft.begin();
    let mut count = 0;
    let mut stored_soon = HashSet::new();
    for envelope in &mut envelopes {
        // A repeat in the same burst waits for the next burst, which finds the first one in the
        // log.
        if envelope.message.once().is_some_and(|once| stored_soon.contains(&once.id())) {
            break;
        }
        if envelope.settled.is_some() {
            // No message may follow a command with guards: if the store refuses the append, the
            // refusal must belong to the last message of the burst.
            if draft.look().is_none() {
                break;
            }
        } else {
            let decided =
                catch_unwind(AssertUnwindSafe(|| envelope.message.decide(draft, repository)));
            match decided {
                Ok(Decision::Made) if envelope.message.has_events() => {
                    stored_soon.extend(envelope.message.once().map(Once::id));
                }
                Ok(Decision::Made) => {}
                Ok(Decision::PutOff) => break,
                // The caller's code panicked. The entity is not at fault and is not quarantined for
                // it.
                Ok(Decision::Broken(panic)) => {
                    let failure = match envelope.message.is_stored() {
                        true => reply_panicked(stream, &*panic),
                        false => died(stream, &*panic),
                    };
                    let verdict = Verdict::Panicked { at: count, failure, blame: Blame::Request };
                    return Decided { envelopes, verdict };
                }
                Err(panic) => {
                    let failure = died(stream, &*panic);
                    let verdict = Verdict::Panicked { at: count, failure, blame: Blame::Entity };
                    return Decided { envelopes, verdict };
                }
            }
        }
        count += 1;
    }
    let effect = if draft.event_count() > 0 { Effect::Events } else { Effect::Nothing };
    Decided { envelopes, verdict: Verdict::Done { state, count, effect } }
}

/// Loads the entity's state.
pub(crate) async fn load<A: Aggregate>(
    repository: &Repository<A>,
    stream: &StreamId,
    attempts: &mut Attempts,
) -> Result<Box<Resident<A>>, Failed> {
    let loading = async {
        let draft = repository.draft(stream, attempts).await.map_err(blame_load)?;
        let weight = draft.state().weight();
        Ok(Box::new(Resident { draft, weight }))
    };
    unwinding(stream, loading).await
}

/// Compares the entity's state with the log, and folds the events that are missing.
pub(crate) async fn catch_up<A: Aggregate>(
    repository: &Repository<A>,
    stream: &StreamId,
    mut state: Box<Resident<A>>,
    attempts: &mut Attempts,
) -> Result<(Box<Resident<A>>, CatchUp), Failed> {
    let comparing = async {
        let tail = state.draft.catch_up(repository, attempts).await.map_err(blame_load)?;
        let caught_up = match tail {
            Tail::Empty => CatchUp::Empty,
            Tail::Folded => CatchUp::Folded,
        };
        state.weight = state.draft.state().weight();
        Ok((state, caught_up))
    };
    unwinding(stream, comparing).await
}

/// Appends the decided events.
pub(crate) async fn append<A: Aggregate>(
    repository: &Repository<A>,
    mut state: Box<Resident<A>>,
    attempts: &mut Attempts,
) -> (Appending<Entity<A>>, Option<Appended>) {
    let outcome = match state.draft.commit(repository, attempts).await {
        Ok(Committing::Stored(appended)) => {
            let weighed = catch_unwind(AssertUnwindSafe(|| state.draft.state().weight()));
            state.weight = weighed.unwrap_or(state.weight);
            return (Appending::Stored(state), Some(appended));
        }
        Ok(Committing::Overtaken) => Appending::Overtaken,
        Err(error) => match failure_of(error) {
            Ok(rejection) => Appending::Refused(rejection),
            Err(EntityError::Store(error)) if error.kind() == StoreErrorKind::Invalid => {
                Appending::Invalid(error.into())
            }
            Err(error) => Appending::Failed(error, Blame::Store),
        },
    };
    (outcome, None)
}

/// Stores a snapshot if one is due.
pub(crate) async fn tend<A: Aggregate>(
    repository: &Repository<A>,
    stream: &StreamId,
    state: &mut Resident<A>,
) -> Result<(), Failed> {
    let tending = async {
        state.draft.snapshot_if_due(repository).await;
        Ok(())
    };
    unwinding(stream, tending).await
}

/// Blames a failed load: an unavailable store is not the entity's fault; history that can't be
/// folded is.
fn blame_load(error: LoadError) -> Failed {
    let blame = match &error {
        LoadError::Store(error) if !is_permanent(error) => Blame::Store,
        LoadError::Key(_) => Blame::Request,
        _ => Blame::Entity,
    };
    (error.into(), blame)
}

fn is_permanent(error: &StoreError) -> bool {
    matches!(error.kind(), StoreErrorKind::Corrupt | StoreErrorKind::Invalid)
}

pub(crate) fn died(stream: &StreamId, panic: &(dyn Any + Send)) -> EntityError {
    EntityError::Panicked { stream: stream.clone(), message: text_of(panic) }
}

fn reply_panicked(stream: &StreamId, panic: &(dyn Any + Send)) -> EntityError {
    EntityError::ReplyPanicked { stream: stream.clone(), message: text_of(panic) }
}

fn text_of(panic: &(dyn Any + Send)) -> Box<str> {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("the panic said nothing").into()
}

/// Runs a future that calls the user's code. A panic in it counts as a death of the entity.
pub(crate) async fn unwinding<T>(
    stream: &StreamId,
    future: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)))
            .unwrap_or_else(|panic| Err((died(stream, &*panic), Blame::Entity)).into())
    })
    .await
}
