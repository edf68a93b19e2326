//! What a cell of a typed entity holds, and how a burst of it is decided, loaded and stored.

use std::{
    any::Any,
    collections::{HashSet, VecDeque},
    future::{Future, poll_fn},
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
};

use factum_kernel::{
    Aggregate, Appended, Attempts, Committing, Draft, LoadError, Repository, StoreError,
    StoreErrorKind, StreamId, Tail as Behind,
};

use crate::{
    cell::{Appending, Blame, Decided, Effect, Letter, Parts, Tail, Verdict},
    error::EntityError,
    message::{Decision, Message, failure_of},
};

/// The cell's parts for one kind of aggregate.
pub(crate) struct Entity<A>(PhantomData<A>);

impl<A: Aggregate> Parts for Entity<A> {
    // Boxed: a message is moved often on its way through the cell.
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
    /// In bytes, as the aggregate counts.
    pub(crate) weight: usize,
}

pub(crate) type Failed = (EntityError, Blame);

/// Decides the messages of a burst in order, up to the first that is put off.
pub(crate) fn decide<A: Aggregate>(
    repository: &Repository<A>,
    stream: &StreamId,
    mut state: Box<Resident<A>>,
    mut letters: VecDeque<Letter<Entity<A>>>,
) -> Decided<Entity<A>> {
    let draft = &mut state.draft;
    draft.begin();
    let mut count = 0;
    let mut stored_soon = HashSet::new();
    for letter in &mut letters {
        // A repeat in the same burst is put off, and found in the log by the next one.
        if letter.message.once().is_some_and(|once| stored_soon.contains(once)) {
            break;
        }
        if letter.settled.is_some() {
            // Behind a command with guards nothing may stand: its refusal is that of the last.
            if draft.look().is_none() {
                break;
            }
        } else {
            let decided =
                catch_unwind(AssertUnwindSafe(|| letter.message.decide(draft, repository)));
            match decided {
                Ok(Decision::Made) if letter.message.has_events() => {
                    stored_soon.extend(letter.message.once().cloned());
                }
                Ok(Decision::Made) => {}
                Ok(Decision::PutOff) => break,
                // The caller's code, and no fault of the entity's: it is not quarantined for it.
                Ok(Decision::Broken(panic)) => {
                    let failure = died(stream, &*panic);
                    let verdict = Verdict::Panicked { at: count, failure, blame: Blame::Request };
                    return Decided { letters, verdict };
                }
                Err(panic) => {
                    let failure = died(stream, &*panic);
                    let verdict = Verdict::Panicked { at: count, failure, blame: Blame::Entity };
                    return Decided { letters, verdict };
                }
            }
        }
        count += 1;
    }
    let effect = if draft.event_count() > 0 { Effect::Events } else { Effect::Nothing };
    Decided { letters, verdict: Verdict::Done { state, count, effect } }
}

/// Loads the entity.
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

/// Compares the entity with the log.
pub(crate) async fn catch_up<A: Aggregate>(
    repository: &Repository<A>,
    stream: &StreamId,
    mut state: Box<Resident<A>>,
    attempts: &mut Attempts,
) -> Result<(Box<Resident<A>>, Tail), Failed> {
    let comparing = async {
        let behind = state.draft.catch_up(repository, attempts).await.map_err(blame_load)?;
        let tail = match behind {
            Behind::Empty => Tail::Empty,
            Behind::Folded => Tail::Folded,
        };
        state.weight = state.draft.state().weight();
        Ok((state, tail))
    };
    unwinding(stream, comparing).await
}

/// Stores what was decided.
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

/// Takes a snapshot if one is due.
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

/// A store that is down is no fault of the entity's; history that can't be folded is.
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

fn died(stream: &StreamId, panic: &(dyn Any + Send)) -> EntityError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let message = text.unwrap_or("the panic said nothing").into();
    EntityError::Panicked { stream: stream.clone(), message }
}

/// Runs a future that calls the user's code; its panic is a death of the entity.
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
