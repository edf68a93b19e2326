//! The result of a rule: events, and the conditions under which they are stored.

use std::fmt;

use crate::{aggregate::Aggregate, query::Matching};

/// The result of a rule: a decision, or a rejection.
pub type Verdict<A> = Result<Decision<A>, <A as Aggregate>::Rejection>;

/// Events, and the conditions under which they are stored.
///
/// A decision is made from an array or a vector of events. A guard adds a rule about events outside
/// the aggregate. The store checks it atomically with the append; if the guard does not hold, the
/// command is rejected with the guard's rejection.
///
/// ```
/// use factum_kernel::{Decision, Matching};
/// use factum_testing::bank::{Account, AccountEvent, AccountRejection};
///
/// let (owner, email) = ("Ada".to_owned(), "ada@example.org".to_owned());
/// let taken = Matching::hashed_tag("email", &email);
/// let decision: Decision<Account> = Decision::from([AccountEvent::Opened { owner, email }])
///     .unless(taken, AccountRejection::EmailTaken);
/// assert_eq!((decision.events().len(), decision.guards().count()), (1, 1));
/// ```
#[must_use]
pub struct Decision<A: Aggregate> {
    pub(crate) events: Vec<A::Event>,
    pub(crate) guards: Vec<(Matching, A::Rejection)>,
}

impl<A: Aggregate> Decision<A> {
    /// A decision without events: nothing has to be done, and that is no failure.
    pub fn nothing() -> Self {
        Self { events: Vec::new(), guards: Vec::new() }
    }

    /// Adds a guard: if any event in the log matches, the command is rejected with `rejection`. A
    /// guard is checked only if there are events to store. A guard that can match no event is
    /// [refused](crate::EncodeError::MatchesNothing).
    pub fn unless(mut self, exists: impl Into<Matching>, rejection: A::Rejection) -> Self {
        self.guards.push((exists.into(), rejection));
        self
    }

    /// The events, in order.
    pub fn events(&self) -> &[A::Event] {
        &self.events
    }

    /// The guards, in order.
    pub fn guards(&self) -> impl Iterator<Item = (&Matching, &A::Rejection)> {
        self.guards.iter().map(|(matching, rejection)| (matching, rejection))
    }
}

impl<A: Aggregate, const N: usize> From<[A::Event; N]> for Decision<A> {
    fn from(events: [A::Event; N]) -> Self {
        Self { events: events.into(), guards: Vec::new() }
    }
}

impl<A: Aggregate> From<Vec<A::Event>> for Decision<A> {
    fn from(events: Vec<A::Event>) -> Self {
        Self { events, guards: Vec::new() }
    }
}

impl<A: Aggregate> fmt::Debug for Decision<A>
where
    A::Event: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Decision");
        out.field("events", &self.events);
        out.field("guards", &self.guards.iter().map(|(guard, _)| guard).collect::<Vec<_>>());
        out.finish()
    }
}
