//! Decisions over a query instead of a stream: the dynamic consistency boundary.

use crate::{
    aggregate::Context,
    batch::{AppendBatch, Appended},
    encoder::Encoder,
    error::StoreError,
    execution::unforeseen,
    kernel::Kernel,
    kind::ErrorKind,
    load::LoadError,
    metadata::Metadata,
    position::Position,
    proposal::{Committing, Proposal, Unsent},
    query::{AppendCondition, Matching, Query},
    read::ReadQuery,
    retry::{Attempts, RetryPolicy},
    schema::{EncodeError, Event, decode_event},
    stream::StreamId,
    tag::Tag,
    version::{ExpectedVersion, StreamVersion},
};

/// Rules over the events that match a query, whatever streams they are in. What was read is what
/// must not have changed when the decision is stored (<https://dcb.events>).
///
/// It folds the events that are there. A stream whose history went behind a summary gives only
/// what is left of it: let a model read streams that keep their history.
///
/// ```
/// use factum_kernel::{Context, DecisionModel, Matching, ModelDecision};
/// # use factum_macros::Event;
/// # #[derive(Debug, thiserror::Error)]
/// # #[error("the course is full")]
/// # struct CourseFull;
///
/// #[derive(Event)]
/// # #[event(crate = factum_kernel)]
/// enum CourseEvent {
///     Joined {
///         #[event(tag)]
///         course: String,
///     },
/// }
///
/// /// A course takes three students.
/// #[derive(Default)]
/// struct Seats {
///     taken: usize,
/// }
///
/// struct Join {
///     course: String,
///     student: String,
/// }
///
/// impl DecisionModel for Seats {
///     type Command = Join;
///     type Event = CourseEvent;
///     type Rejection = CourseFull;
///
///     fn query(command: &Join) -> Matching {
///         Matching::events::<CourseEvent>().and(Matching::tag("course", &command.course))
///     }
///
///     fn evolve(&mut self, _: &CourseEvent) {
///         self.taken += 1;
///     }
///
///     fn decide(
///         &self,
///         command: &Join,
///         _: &Context<'_>,
///     ) -> Result<ModelDecision<CourseEvent>, CourseFull> {
///         let joined = CourseEvent::Joined { course: command.course.clone() };
///         match self.taken {
///             0..3 => Ok(ModelDecision::event("student", &command.student, joined)),
///             _ => Err(CourseFull),
///         }
///     }
/// }
/// # let join = Join { course: "rust".into(), student: "ada".into() };
/// # assert!(Seats::query(&join).resolve(None).unwrap().matches("course.joined", ["course:rust"]));
/// ```
pub trait DecisionModel: Default + Send + Sync + 'static {
    /// What can be asked of it.
    type Command: Send + Sync;
    /// What it reads and writes. Matching events of other enums are not folded.
    type Event: Event;
    /// What it can say no with.
    type Rejection: std::error::Error + Send + Sync + 'static;

    /// The events that the decision depends on. A query that can match no event is refused, and so
    /// is one that names a tag plainly where an event of the decision has it hashed, or the other
    /// way round: the model would not find its own events.
    fn query(command: &Self::Command) -> Matching;

    /// Takes an event into the state.
    fn evolve(&mut self, event: &Self::Event);

    /// The events that a command leads to, or the reason why not.
    ///
    /// # Errors
    /// The domain says no.
    fn decide(
        &self,
        command: &Self::Command,
        cx: &Context<'_>,
    ) -> Result<ModelDecision<Self::Event>, Self::Rejection>;
}

/// Events and the streams they go to.
#[derive(Debug, Clone)]
#[must_use]
pub struct ModelDecision<E> {
    writes: Vec<(String, String, E)>,
}

impl<E> ModelDecision<E> {
    /// There is nothing to do, and that is fine.
    pub fn nothing() -> Self {
        Self { writes: Vec::new() }
    }

    /// One event, in the stream `category-key`.
    pub fn event(category: &str, key: &str, event: E) -> Self {
        Self::nothing().and(category, key, event)
    }

    /// One more.
    pub fn and(mut self, category: &str, key: &str, event: E) -> Self {
        self.writes.push((category.into(), key.into(), event));
        self
    }

    /// The events, in order.
    pub fn events(&self) -> impl Iterator<Item = &E> {
        self.writes.iter().map(|(_, _, event)| event)
    }
}

/// What came of a decision over a query.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Decided<M> {
    /// The model behind the events.
    pub model: M,
    /// What was stored; `None` if there was nothing to do.
    pub appended: Option<Appended>,
}

/// Why a decision over a query was not stored, or is not known to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError<R: std::error::Error + 'static> {
    /// The domain says no. Nothing was stored.
    #[error(transparent)]
    Rejected(R),
    /// Others appended to what the model had read, again and again. Nothing was stored; try later,
    /// or raise [`conflicts_max`](crate::RetryPolicy::conflicts_max).
    #[error("others appended to what the decision depends on: position={position}")]
    Overtaken {
        /// An event that it had not seen.
        position: Position,
    },
    /// What the query names can't be read, or a stream of the decision can't be.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An event or the query can't be written down.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// It may or may not be stored: every repeat failed too. Read to see.
    #[error("the outcome is unknown")]
    Indeterminate(#[source] StoreError),
    /// The store. Nothing was stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<R: std::error::Error + 'static> ModelError<R> {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(_) => ErrorKind::Rejected,
            Self::Overtaken { .. } => ErrorKind::Conflict,
            Self::Load(error) => error.kind(),
            Self::Encode(error) => error.kind(),
            Self::Indeterminate(_) => ErrorKind::Unknown,
            Self::Store(error) => error.kind().into(),
        }
    }
}

impl<R: std::error::Error + 'static> From<Unsent<R>> for ModelError<R> {
    fn from(error: Unsent<R>) -> Self {
        match error {
            Unsent::Rejected(rejection) => Self::Rejected(rejection),
            Unsent::Overtaken(position) => Self::Overtaken { position },
            Unsent::Indeterminate(error) => Self::Indeterminate(error),
            Unsent::Store(error) => Self::Store(error),
            Unsent::Conflict(_) | Unsent::Along(_) => Self::Store(unforeseen()),
        }
    }
}

/// Reads what a command depends on, decides, and appends under the condition that nothing of it
/// has changed; if something has, again.
///
/// # Errors
/// See [`ModelError`].
///
/// # Cancel safety
/// A dropped future may or may not have stored the events.
pub async fn execute_model<M: DecisionModel>(
    kernel: &Kernel,
    command: &M::Command,
    metadata: &Metadata,
    retry: RetryPolicy,
) -> Result<Decided<M>, ModelError<M::Rejection>> {
    let query = M::query(command).resolve_guard(kernel.tag_key())?;
    let mut attempts = Attempts::new(retry);
    loop {
        let read = || read_model::<M>(kernel, &query);
        let read = kernel.patiently(&mut attempts, LoadError::store_error, read).await;
        let (mut model, after) = read?;
        let encoder = Encoder::new(kernel, metadata);
        let cx = encoder.context("", StreamVersion::ZERO);
        let decision = model.decide(command, &cx).map_err(ModelError::Rejected)?;
        if decision.writes.is_empty() {
            return Ok(Decided { model, appended: None });
        }
        let (mut proposal, own) = propose(&encoder, &query, decision)?;
        proposal.unless_overtaken(AppendCondition { fail_if_events_match: query.clone(), after });
        // Before anything is stored: an event that `evolve` panics on must not be.
        own.iter().for_each(|event| model.evolve(event));
        let sent = proposal.send(AppendBatch::new(), kernel, &mut attempts).await?;
        if let Committing::Stored(appended) = sent {
            return Ok(Decided { model, appended: Some(appended) });
        }
    }
}

/// The model as it is, and the position up to which that is all there is.
async fn read_model<M: DecisionModel>(
    kernel: &Kernel,
    query: &Query,
) -> Result<(M, Position), LoadError> {
    let mut model = M::default();
    let mut next = ReadQuery::matching(query.clone());
    loop {
        let page = kernel.events().read(next.clone()).await?;
        for recorded in &page.events {
            if M::Event::owns(recorded.name()) {
                decode_event(recorded, &mut |event| model.evolve(&event))?;
            }
        }
        match next.next(&page) {
            Some(query) => next = query,
            // Every matching event up to here was seen: the law of the honest scan.
            None => return Ok((model, page.scanned_through)),
        }
    }
}

/// A decision in its order, and those of its events that the query will read, as they will be read.
fn propose<E: Event, R: std::error::Error>(
    encoder: &Encoder<'_>,
    query: &Query,
    decision: ModelDecision<E>,
) -> Result<(Proposal<R>, Vec<E>), ModelError<R>> {
    let mut proposal = Proposal::new();
    let mut own = Vec::new();
    for (category, key, event) in decision.writes {
        let stream = StreamId::new(&category, &key).map_err(LoadError::from)?;
        let (new, read) = encoder.event(&event)?;
        query.check_kinds(std::slice::from_ref(&new)).map_err(EncodeError::from)?;
        if query.matches(new.name.as_str(), new.tags.iter().map(Tag::as_str)) {
            own.push(read);
        }
        let stream = proposal.stream(stream, ExpectedVersion::Any);
        proposal.add(stream, vec![new]);
    }
    Ok((proposal, own))
}
