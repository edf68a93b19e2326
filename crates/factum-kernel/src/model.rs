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

/// Rules over the events that match a query, whatever streams they are in. What was read is what
/// must not have changed when the decision is stored (<https://dcb.events>). A
/// [`Transaction`](crate::Transaction) decides by them.
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
    type Command: Send + Sync + 'static;
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

    /// What is written, in order: category, key, event.
    pub(crate) fn into_writes(self) -> Vec<(String, String, E)> {
        self.writes
    }
}

/// The model as it is, and the position up to which that is all there is.
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
            // Every matching event up to here was seen: the law of the honest scan.
            None => return Ok((model, page.scanned_through)),
        }
    }
}
