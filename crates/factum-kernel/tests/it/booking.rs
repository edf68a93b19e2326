//! Decisions over a query that say what they expect of the streams they write: rooms of a hotel.

use std::sync::{Arc, Mutex};

use factum_kernel::{
    Aggregate, AppendBatch, AppendError, Appended, Context, Decision, DecisionModel, EventId,
    EventName, EventStore, ExpectedVersion, Matching, Metadata, ModelDecision, NewEvent, Page,
    ReadQuery, Repository, RetryPolicy, StoreError, StreamId, StreamVersion, Tag, Timestamp,
    Transaction, TransactionError, Verdict, VersionConflict, category, encode_event,
};
use factum_macros::Event;
use factum_testing::{ForwardEvents, Forwarding};

use crate::bench::{Bench, no_metadata};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(crate = factum_kernel, prefix = "booking")]
enum BookingEvent {
    Booked {
        #[event(tag)]
        room: String,
    },
    /// It has no field that names the booking.
    Cancelled {
        #[event(tag)]
        room: String,
    },
}

#[derive(Debug, Default, PartialEq, Clone, Copy)]
enum Booking {
    #[default]
    None,
    Booked,
    Cancelled,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("the room is taken by {0}")]
struct Taken(String);

impl Aggregate for Booking {
    const CATEGORY: &'static str = category!("booking");
    type Command = BookingEvent;
    type Event = BookingEvent;
    type Rejection = Taken;

    fn decide(&self, command: &BookingEvent, _: &Context<'_>) -> Verdict<Self> {
        Ok(Decision::from([command.clone()]))
    }

    fn evolve(&mut self, event: &BookingEvent) {
        *self = match event {
            BookingEvent::Booked { .. } => Self::Booked,
            BookingEvent::Cancelled { .. } => Self::Cancelled,
        };
    }
}

/// The bookings of one room that are not cancelled.
#[derive(Debug, Default, PartialEq)]
struct Room(Vec<String>);

/// Books a room; `room` is the tag that the model reads.
struct Book {
    key: &'static str,
    room: &'static str,
    expected: ExpectedVersion,
}

impl DecisionModel for Room {
    type Command = Book;
    type Event = BookingEvent;
    type Rejection = Taken;

    fn query(command: &Book) -> Matching {
        Matching::events::<BookingEvent>().and(Matching::tag("room", command.room))
    }

    fn evolve(&mut self, event: &BookingEvent, key: &str) {
        match event {
            BookingEvent::Booked { .. } => self.0.push(key.to_owned()),
            BookingEvent::Cancelled { .. } => self.0.retain(|booked| booked != key),
        }
    }

    fn decide(
        &self,
        command: &Book,
        _: &Context<'_>,
    ) -> Result<ModelDecision<BookingEvent>, Taken> {
        if let Some(by) = self.0.first() {
            return Err(Taken(by.clone()));
        }
        let booked = BookingEvent::Booked { room: command.room.into() };
        let decision = ModelDecision::event("booking", command.key, booked);
        Ok(decision.expecting("booking", command.key, command.expected))
    }
}

fn book(key: &'static str, room: &'static str) -> Book {
    Book { key, room, expected: ExpectedVersion::NoStream }
}

fn bookings(bench: &Bench) -> Repository<Booking> {
    Repository::new(bench.kernel.clone())
}

async fn decide(bench: &Bench, command: Book) -> Result<Option<Room>, TransactionError> {
    let transaction = Transaction::new(bench.kernel.clone()).decide::<Room>(command);
    Ok(transaction.commit(&no_metadata()).await?.into_model())
}

async fn cancel(bench: &Bench, key: &str, room: &str) {
    let cancelled = BookingEvent::Cancelled { room: room.into() };
    bookings(bench).execute(key, &cancelled).await.unwrap();
}

fn conflict(refused: Result<Option<Room>, TransactionError>) -> VersionConflict {
    match refused {
        Err(TransactionError::Conflict(conflict)) => conflict,
        other => panic!("no conflict: {other:?}"),
    }
}

#[tokio::test]
async fn a_cancelled_booking_is_not_brought_back_to_life_by_a_decision_that_expects_a_new_stream() {
    let bench = Bench::new();
    decide(&bench, book("b1", "7")).await.unwrap();
    cancel(&bench, "b1", "7").await;
    // The query of the other room reads nothing of the booking.
    for room in ["7", "8"] {
        let conflict = conflict(decide(&bench, book("b1", room)).await);
        assert_eq!(conflict.stream.to_string(), "booking-b1");
        assert_eq!((conflict.expected, conflict.actual.value()), (ExpectedVersion::NoStream, 2));
        assert_eq!(bookings(&bench).load("b1").await.unwrap().state, Booking::Cancelled);
    }
}

#[tokio::test]
async fn a_decision_may_expect_that_its_stream_exists() {
    let bench = Bench::new();
    let again = || Book { key: "b1", room: "7", expected: ExpectedVersion::StreamExists };
    assert_eq!(conflict(decide(&bench, again()).await).actual.value(), 0);
    decide(&bench, book("b1", "7")).await.unwrap();
    cancel(&bench, "b1", "7").await;
    decide(&bench, again()).await.unwrap();
    assert_eq!(bookings(&bench).load("b1").await.unwrap().state, Booking::Booked);
}

#[tokio::test]
async fn a_rule_sees_the_key_of_each_event_also_of_events_in_its_own_transaction() {
    let bench = Bench::new();
    decide(&bench, book("b1", "7")).await.unwrap();
    let taken = decide(&bench, book("b2", "7")).await.unwrap_err();
    let TransactionError::Rejected(step) = taken else { panic!("{taken}") };
    assert_eq!(step.downcast_ref(), Some(&Taken("b1".into())));
    let cancelled = BookingEvent::Cancelled { room: "7".into() };
    let transaction = Transaction::new(bench.kernel.clone())
        .execute(&bookings(&bench), "b1", cancelled)
        .decide::<Room>(book("b2", "7"));
    let committed = transaction.commit(&no_metadata()).await.unwrap();
    assert_eq!(committed.into_model(), Some(Room(vec!["b2".into()])));
}

#[tokio::test]
async fn an_expectation_meets_the_version_that_another_step_has_read() {
    let bench = Bench::new();
    decide(&bench, book("b1", "7")).await.unwrap();
    let booked = || BookingEvent::Booked { room: "9".into() };
    let transaction = Transaction::new(bench.kernel.clone())
        .execute(&bookings(&bench), "b1", booked())
        .decide::<Room>(book("b1", "8"));
    let refused = transaction.commit(&no_metadata()).await;
    assert_eq!(conflict(refused.map(|_| None)).actual.value(), 1);
    let transaction = Transaction::new(bench.kernel.clone())
        .execute(&bookings(&bench), "b2", booked())
        .decide::<Room>(book("b2", "8"));
    assert_eq!(transaction.commit(&no_metadata()).await.unwrap().events, 2);
}

/// A store in which another caller books the room between the read of a decision and its append.
#[derive(Debug)]
struct Overtaking {
    inner: Arc<dyn EventStore>,
    other: Mutex<Option<AppendBatch>>,
}

#[async_trait::async_trait]
impl ForwardEvents for Overtaking {
    fn events(&self) -> Arc<dyn EventStore> {
        self.inner.clone()
    }

    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        let other = self.other.lock().unwrap().take();
        if let Some(other) = other {
            self.inner.append(other).await?;
        }
        self.inner.append(batch).await
    }
}

/// The same stream is written by the other caller, so the append meets a conflict. But the model
/// is outdated, and the rule has a better answer.
#[tokio::test]
async fn an_outdated_decision_is_made_again_before_its_expectation_is_a_conflict() {
    let elsewhere = Bench::new();
    // Both benches give the same ids in order, and an event with a known id is a repeat.
    decide(&elsewhere, book("b0", "9")).await.unwrap();
    decide(&elsewhere, book("b1", "7")).await.unwrap();
    let stored = elsewhere.store.read(ReadQuery::log()).await.unwrap().events.remove(1);
    let event = NewEvent::new(
        stored.id(),
        EventName::parse(stored.name()).unwrap(),
        stored.content(),
        stored.payload_bytes(),
    );
    let event = event.with_tag(Tag::parse("room:7").unwrap());
    let stream = stored.stream().to_stream_id();
    let other = AppendBatch::new().write(stream, ExpectedVersion::NoStream, [event]);
    let bench = Bench::new();
    let other = Mutex::new(Some(other));
    let overtaking = Forwarding(Overtaking { inner: bench.store.clone(), other });
    let kernel = bench.kernel.clone().with_events(Arc::new(overtaking));
    let bench = Bench { kernel, ..bench };
    let retry = RetryPolicy::new().with_conflicts_max(1);
    let decided = Transaction::new(bench.kernel.clone()).with_retry(retry);
    let refused = decided.decide::<Room>(book("b1", "7")).commit(&no_metadata()).await.unwrap_err();
    let TransactionError::Rejected(step) = refused else { panic!("{refused}") };
    assert_eq!(step.downcast_ref(), Some(&Taken("b1".into())));
}

/// Books nothing, and expects something of a booking.
#[derive(Debug, Default)]
struct Check;

impl DecisionModel for Check {
    type Command = Book;
    type Event = BookingEvent;
    type Rejection = Taken;

    fn query(command: &Book) -> Matching {
        Room::query(command)
    }

    fn evolve(&mut self, _: &BookingEvent, _: &str) {}

    fn decide(
        &self,
        command: &Book,
        _: &Context<'_>,
    ) -> Result<ModelDecision<BookingEvent>, Taken> {
        let nothing = ModelDecision::nothing();
        Ok(nothing.expecting("booking", command.key, command.expected))
    }
}

fn exists(key: &'static str, room: &'static str) -> Book {
    Book { key, room, expected: ExpectedVersion::StreamExists }
}

/// Another caller's booking of b1 in room 9, which no query here reads.
fn other_booking() -> AppendBatch {
    let id = EventId::derived(Timestamp::EPOCH, b"other");
    let booked = BookingEvent::Booked { room: "9".into() };
    let event = encode_event(&booked, id, &Metadata::new(), None).unwrap();
    let stream = StreamId::new("booking", "b1").unwrap();
    AppendBatch::new().write(stream, ExpectedVersion::Any, [event])
}

#[tokio::test]
async fn a_command_after_an_expectation_of_its_stream_loses_no_update() {
    for expected in [ExpectedVersion::StreamExists, ExpectedVersion::Any] {
        let bench = Bench::new();
        decide(&bench, book("b1", "7")).await.unwrap();
        let other = Mutex::new(Some(other_booking()));
        let store = Arc::new(Forwarding(Overtaking { inner: bench.store.clone(), other }));
        let kernel = bench.kernel.clone().with_events(store);
        let cancelled = BookingEvent::Cancelled { room: "7".into() };
        let transaction = Transaction::new(kernel.clone())
            .allowing_unchanged()
            .with_retry(RetryPolicy::never())
            .decide::<Check>(Book { key: "b1", room: "8", expected })
            .execute(&Repository::<Booking>::new(kernel), "b1", cancelled);
        let refused = transaction.commit(&no_metadata()).await;
        let conflict = conflict(refused.map(|_| None));
        let read = ExpectedVersion::Exact(StreamVersion::new(1));
        assert_eq!((conflict.expected, conflict.actual.value()), (read, 2));
    }
}

#[tokio::test]
async fn a_deleted_stream_does_not_exist_for_a_decision_after_a_command() {
    let bench = Bench::new();
    decide(&bench, book("b1", "7")).await.unwrap();
    bookings(&bench).delete("b1", ExpectedVersion::Any).await.unwrap();
    let booked = || BookingEvent::Booked { room: "9".into() };
    let new = || Transaction::new(bench.kernel.clone()).allowing_unchanged();
    let after = new().execute(&bookings(&bench), "b1", booked()).decide::<Check>(exists("b1", "8"));
    let before =
        new().decide::<Check>(exists("b1", "8")).execute(&bookings(&bench), "b1", booked());
    for transaction in [after, before] {
        let refused = transaction.commit(&no_metadata()).await;
        let conflict = conflict(refused.map(|_| None));
        assert_eq!(conflict.expected, ExpectedVersion::StreamExists);
        assert_eq!(conflict.deleted_at, Some(StreamVersion::new(2)));
    }
}

/// A store in which another caller appends after the first read of a stream.
#[derive(Debug)]
struct Meanwhile {
    inner: Arc<dyn EventStore>,
    other: Mutex<Option<AppendBatch>>,
}

#[async_trait::async_trait]
impl ForwardEvents for Meanwhile {
    fn events(&self) -> Arc<dyn EventStore> {
        self.inner.clone()
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        let page = self.inner.read(query).await?;
        let other = self.other.lock().unwrap().take_if(|_| page.bounds.is_some());
        if let Some(other) = other {
            self.inner.append(other).await.unwrap();
        }
        Ok(page)
    }
}

#[tokio::test]
async fn an_expectation_that_fails_at_an_outdated_version_is_decided_again() {
    let bench = Bench::new();
    let other = Mutex::new(Some(other_booking()));
    let store = Arc::new(Forwarding(Meanwhile { inner: bench.store.clone(), other }));
    let kernel = bench.kernel.clone().with_events(store);
    let booked = BookingEvent::Booked { room: "9".into() };
    let transaction = Transaction::new(kernel.clone())
        .allowing_unchanged()
        .execute(&Repository::<Booking>::new(kernel), "b1", booked)
        .decide::<Check>(exists("b1", "8"));
    assert_eq!(transaction.commit(&no_metadata()).await.unwrap().events, 1);
    assert_eq!(bookings(&bench).load("b1").await.unwrap().version.value(), 2);
}
