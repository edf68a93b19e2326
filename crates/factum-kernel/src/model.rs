//! Decisions over a query instead of a stream: the dynamic consistency boundary.

use crate::{
    aggregate::Context,
    kernel::Kernel,
    load::LoadError,
    position::Position,
    query::{Matching, Query},
    read::ReadQuery,
    schema::{Event, decode_event},
};

/// Rules over the events that match a query, in any streams. The decision is stored only if no new
/// matching event was added since the model was read (<https://dcb.events>). A
/// [`Transaction`](crate::Transaction) uses these rules.
///
/// The model folds the events that are in the log. A stream whose history was erased up to a
/// summary has only its later events, so a model should read streams that keep their history.
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
/// /// A course has room for three students.
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
    /// The commands that the model decides.
    type Command: Send + Sync + 'static;
    /// The events that it reads and writes. Matching events of other enums are not folded.
    type Event: Event;
    /// The reasons for which it rejects commands.
    type Rejection: std::error::Error + Send + Sync + 'static;

    /// The query for the events that the decision depends on. A query that can match no event is
    /// refused. So is a query with a plain tag whose name is hashed in an event of the decision, or
    /// the reverse, because the model would not find its own events.
    fn query(command: &Self::Command) -> Matching;

    /// Applies an event to the state.
    fn evolve(&mut self, event: &Self::Event);

    /// Decides a command: returns its events, or a rejection.
    ///
    /// # Errors
    /// A rejection by the domain.
    fn decide(
        &self,
        command: &Self::Command,
        cx: &Context<'_>,
    ) -> Result<ModelDecision<Self::Event>, Self::Rejection>;
}

/// The decision of a model: events with the streams that they are appended to.
#[derive(Debug, Clone)]
#[must_use]
pub struct ModelDecision<E> {
    writes: Vec<ModelWrite<E>>,
}

/// An event of a decision, and its stream.
#[derive(Debug, Clone)]
pub(crate) struct ModelWrite<E> {
    pub(crate) category: String,
    pub(crate) key: String,
    pub(crate) event: E,
}

impl<E> ModelDecision<E> {
    /// A decision without events: nothing has to be done, and that is no failure.
    pub fn nothing() -> Self {
        Self { writes: Vec::new() }
    }

    /// A decision with one event, in the stream `category-key`.
    pub fn event(category: &str, key: &str, event: E) -> Self {
        Self::nothing().and(category, key, event)
    }

    /// Adds an event.
    pub fn and(mut self, category: &str, key: &str, event: E) -> Self {
        self.writes.push(ModelWrite { category: category.into(), key: key.into(), event });
        self
    }

    /// The events, in order.
    pub fn events(&self) -> impl Iterator<Item = &E> {
        self.writes.iter().map(|write| &write.event)
    }

    /// The writes, in order.
    pub(crate) fn into_writes(self) -> Vec<ModelWrite<E>> {
        self.writes
    }
}

/// The present model, and the position up to which it contains all matching events.
pub(crate) async fn read_model<M: DecisionModel>(
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
            // By the store's law of honest scans, every matching event up to here was read.
            None => return Ok((model, page.scanned_through)),
        }
    }
}
