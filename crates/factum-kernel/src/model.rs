//! Decisions over a query instead of a stream: the dynamic consistency boundary.

use crate::{
    aggregate::Context,
    kernel::Kernel,
    load::LoadError,
    position::Position,
    query::{Matching, Query},
    read::ReadQuery,
    schema::{Event, decode_event},
    version::ExpectedVersion,
};

/// Rules over the events that match a query, in any streams. The decision is stored only if no new
/// matching event was added since the model was read (<https://dcb.events>). A
/// [`Transaction`](crate::Transaction) uses these rules.
///
/// The model folds the events that are in the log. A stream whose history was erased up to a
/// summary has only its later events, so a model should read streams that keep their history.
///
/// ```
/// use factum_kernel::{Context, DecisionModel, ExpectedVersion, Matching, ModelDecision};
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
///     fn evolve(&mut self, _: &CourseEvent, _student: &str) {
///         self.taken += 1;
///     }
///
///     fn decide(
///         &self,
///         command: &Join,
///         _: &Context<'_>,
///     ) -> Result<ModelDecision<CourseEvent>, CourseFull> {
///         if self.taken >= 3 {
///             return Err(CourseFull);
///         }
///         let joined = CourseEvent::Joined { course: command.course.clone() };
///         let student = &command.student;
///         let decision = ModelDecision::event("student", student, joined);
///         // A student who left, and so has events already, does not come back by joining.
///         Ok(decision.expecting("student", student, ExpectedVersion::NoStream))
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

    /// Applies an event to the state. `key` is the key of the event's stream: the model reads many
    /// streams, and an event need not repeat which of them it belongs to.
    fn evolve(&mut self, event: &Self::Event, key: &str);

    /// Decides a command: returns its events, or a rejection. The context has no key and no
    /// version, because the decision is not about one stream.
    ///
    /// # Errors
    /// A rejection by the domain.
    fn decide(
        &self,
        command: &Self::Command,
        cx: &Context<'_>,
    ) -> Result<ModelDecision<Self::Event>, Self::Rejection>;
}

/// The decision of a model: events with the streams that they are appended to, and the expectations
/// of these streams.
///
/// The query protects only what the model reads. A stream that the decision writes may have events
/// that the query does not match, such as those of a cancelled booking. So a decision that begins a
/// stream [expects](Self::expecting) that there is none.
#[derive(Debug, Clone)]
#[must_use]
pub struct ModelDecision<E> {
    writes: Vec<ModelWrite<E>>,
    expectations: Vec<ModelExpectation>,
}

/// The expectation of a stream that a decision writes.
#[derive(Debug, Clone)]
pub(crate) struct ModelExpectation {
    pub(crate) category: String,
    pub(crate) key: String,
    pub(crate) expected: ExpectedVersion,
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
        Self { writes: Vec::new(), expectations: Vec::new() }
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

    /// Stores the decision only if the stream `category-key` is as expected before it:
    /// [`NoStream`](ExpectedVersion::NoStream) for a stream that the decision begins,
    /// [`StreamExists`](ExpectedVersion::StreamExists) for one that it continues.
    ///
    /// If the stream is not as expected, and the events that the model has read are still all that
    /// its query matches, the decision fails with a conflict. Otherwise it is made again.
    ///
    /// ```
    /// use factum_kernel::{ExpectedVersion, ModelDecision};
    ///
    /// let booked = ModelDecision::event("booking", "b7", "booked");
    /// let booked = booked.expecting("booking", "b7", ExpectedVersion::NoStream);
    /// assert_eq!(booked.events().count(), 1);
    /// ```
    pub fn expecting(mut self, category: &str, key: &str, expected: ExpectedVersion) -> Self {
        let category = category.into();
        let key = key.into();
        self.expectations.push(ModelExpectation { category, key, expected });
        self
    }

    /// The events, in order.
    pub fn events(&self) -> impl Iterator<Item = &E> {
        self.writes.iter().map(|write| &write.event)
    }

    /// The expectations of streams.
    pub(crate) fn expectations(&self) -> &[ModelExpectation] {
        &self.expectations
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
                let key = recorded.stream().key();
                decode_event(recorded, &mut |event| model.evolve(&event, key))?;
            }
        }
        match next.next(&page) {
            Some(query) => next = query,
            // By the store's law of honest scans, every matching event up to here was read.
            None => return Ok((model, page.scanned_through)),
        }
    }
}
