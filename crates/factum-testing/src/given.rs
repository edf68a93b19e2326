//! Tests of rules as sentences: given these events, when this command comes, then these events
//! follow.

use std::fmt::Debug;

use factum_kernel::{
    Aggregate, Context, Decision, Event, EventHeader, EventId, Matching, Metadata, Position,
    RecordedEvent, StreamId, StreamVersion, TagKey, Timestamp, decode_event, encode_event, fold,
};

use crate::diff::diff;

/// The secret key of hashed tags in tests of rules.
const TAG_KEY: [u8; 32] = [7; 32];

/// Begins a test of an aggregate's rules with its earlier events.
///
/// Every event, given or decided, is also encoded and decoded, and must come back unchanged.
///
/// ```
/// use factum_testing::{bank::{Account, AccountCommand, AccountEvent}, given};
///
/// let opened = AccountEvent::Opened { owner: "Ada".into(), email: "ada@example.org".into() };
/// given::<Account>([opened])
///     .when(AccountCommand::Deposit { cents: 500 })
///     .then([AccountEvent::Deposited { cents: 500 }])
///     .state(|account| assert_eq!(account.balance_cents, 500));
/// ```
///
/// # Panics
/// If an event does not survive encoding. Each later step documents its own panics.
#[track_caller]
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A>
where
    A::Event: PartialEq + Debug,
{
    let given = Given {
        state: A::default(),
        version: StreamVersion::ZERO,
        key: "test".into(),
        now: Timestamp::from_micros(1_772_355_600_000_000),
        metadata: Metadata::new(),
        round_trip: true,
    };
    given.and(events)
}

/// The state of an aggregate and the context of its next decision; see [`given()`].
#[derive(Debug, Clone)]
#[must_use = "a test needs a `when` and a `then`"]
pub struct Given<A> {
    state: A,
    version: StreamVersion,
    key: String,
    now: Timestamp,
    metadata: Metadata,
    round_trip: bool,
}

impl<A: Aggregate> Given<A>
where
    A::Event: PartialEq + Debug,
{
    /// Adds events.
    ///
    /// # Panics
    /// If one does not survive encoding.
    #[track_caller]
    pub fn and(mut self, events: impl IntoIterator<Item = A::Event>) -> Self {
        for event in events {
            self.fold(&event);
        }
        self
    }

    /// Sets the aggregate's key; the default is `test`.
    pub fn with_key(mut self, key: &str) -> Self {
        self.key = key.into();
        self
    }

    /// Sets the time of the decision; the default is 2026-03-01T09:00:00Z.
    pub fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    /// Sets the metadata of the command, such as the principal and the cause.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Turns off encoding and decoding from here on, for an event type that can't be stored yet.
    pub fn without_encoding(mut self) -> Self {
        self.round_trip = false;
        self
    }

    /// Lets the aggregate decide on a command.
    pub fn when(self, command: impl Into<A::Command>) -> When<A> {
        let decided = {
            let cx = Context::new(&self.key, self.version, self.now, &self.metadata);
            self.state.decide(&command.into(), &cx)
        };
        When { given: self, decided }
    }

    #[track_caller]
    fn fold(&mut self, event: &A::Event) {
        if self.round_trip {
            check_round_trip(event, &self.metadata);
        }
        // As in the kernel's fold, because a summary replaces all events before it.
        if event.is_summary() {
            self.state = A::default();
        }
        fold(&mut self.state, event);
        self.version = self.version.next();
    }
}

#[track_caller]
fn check_round_trip<E: Event + PartialEq + Debug>(event: &E, metadata: &Metadata) {
    let id = EventId::derived(Timestamp::EPOCH, b"round trip");
    let new = encode_event(event, id, metadata, Some(&TagKey::new(TAG_KEY)))
        .unwrap_or_else(|e| panic!("{e}: event={event:?}"));
    let header = EventHeader {
        position: Position::new(1),
        version: StreamVersion::new(1),
        recorded_at: Timestamp::EPOCH,
        id,
        schema_version: new.schema_version,
        content: new.content,
    };
    let stream = StreamId::new("test", "round-trip").expect("a valid id");
    let recorded = RecordedEvent::from_new(header, stream.as_ref(), &new);
    let mut back = vec![];
    if let Err(e) = decode_event(&recorded, &mut |event: E| back.push(event)) {
        panic!("{e}: event={event:?}");
    }
    if back.iter().ne([event]) {
        panic!(
            "an event changed on its way through its codec:\n{}",
            diff(&format!("{:#?}", [event]), &format!("{back:#?}"))
        );
    }
}

/// The decision of an aggregate, to be checked.
#[derive(Debug)]
#[must_use = "a test needs a `then`"]
pub struct When<A: Aggregate>
where
    A::Event: Debug,
{
    given: Given<A>,
    decided: Result<Decision<A>, A::Rejection>,
}

impl<A: Aggregate> When<A>
where
    A::Event: PartialEq + Debug,
{
    /// Checks that the command leads to these events, in this order.
    ///
    /// # Panics
    /// If it leads to others, with the difference line by line; if it was rejected; if an event
    /// does not survive encoding.
    #[track_caller]
    pub fn then(self, events: impl IntoIterator<Item = A::Event>) -> Then<A> {
        let wanted: Vec<A::Event> = events.into_iter().collect();
        let decision = match self.decided {
            Ok(decision) => decision,
            Err(rejection) => panic!(
                "the command was rejected, but should lead to {} event(s):\n{}",
                wanted.len(),
                diff(&format!("{wanted:#?}"), &format!("rejected: {rejection:?} ({rejection})"))
            ),
        };
        if decision.events() != wanted {
            panic!(
                "the command led to other events:\n{}",
                diff(&format!("{wanted:#?}"), &format!("{:#?}", decision.events()))
            );
        }
        let mut given = self.given;
        for event in decision.events() {
            given.fold(event);
        }
        Then { given, decision }
    }

    /// Checks that the command leads to no event and is not rejected.
    ///
    /// # Panics
    /// If it leads to events, or was rejected.
    #[track_caller]
    pub fn then_nothing(self) -> Then<A> {
        self.then([])
    }

    /// Checks that the command is rejected with this rejection.
    ///
    /// # Panics
    /// If it leads to events or to another rejection, with the difference line by line.
    #[track_caller]
    pub fn rejected(self, rejection: A::Rejection)
    where
        A::Rejection: PartialEq + Debug,
    {
        let wanted = format!("rejected: {rejection:#?}");
        match self.decided {
            Err(found) if found == rejection => {}
            Err(found) => panic!(
                "the command was rejected otherwise:\n{}",
                diff(&wanted, &format!("rejected: {found:#?}"))
            ),
            Ok(decision) => panic!(
                "the command should be rejected, but led to events:\n{}",
                diff(&wanted, &format!("{:#?}", decision.events()))
            ),
        }
    }
}

/// The result of a command, for more checks.
#[derive(Debug)]
pub struct Then<A: Aggregate>
where
    A::Event: Debug,
{
    given: Given<A>,
    decision: Decision<A>,
}

impl<A: Aggregate> Then<A>
where
    A::Event: PartialEq + Debug,
{
    /// Checks that the decision has this guard: it holds only if no event in the log matches;
    /// otherwise the result is this rejection.
    ///
    /// # Panics
    /// If the decision has no such guard.
    #[track_caller]
    pub fn guarded(self, exists: impl Into<Matching>, rejection: A::Rejection) -> Self
    where
        A::Rejection: PartialEq + Debug,
    {
        let wanted = (exists.into(), rejection);
        let guards: Vec<_> = self.decision.guards().collect();
        if !guards.contains(&(&wanted.0, &wanted.1)) {
            panic!(
                "the decision has no such guard:\n{}",
                diff(&format!("{:#?}", [&wanted]), &format!("{guards:#?}"))
            );
        }
        self
    }

    /// Checks that the decision depends only on the aggregate.
    ///
    /// # Panics
    /// If it has a guard.
    #[track_caller]
    pub fn unguarded(self) -> Self
    where
        A::Rejection: Debug,
    {
        let guards: Vec<_> = self.decision.guards().collect();
        assert!(guards.is_empty(), "the decision has guards: {guards:#?}");
        self
    }

    /// Checks the state after all given and decided events.
    #[track_caller]
    pub fn state(self, check: impl FnOnce(&A)) -> Self {
        check(&self.given.state);
        self
    }

    /// Goes on with another command, after the decided events.
    pub fn when(self, command: impl Into<A::Command>) -> When<A> {
        self.given.when(command)
    }
}
