//! The order of a decision's events: the answer, the log and a read agree.

use std::sync::Arc;

use factum::{
    App, Context, DecisionModel, Event, Matching, ModelDecision, ReadQuery,
    event::StreamId,
    journal::{JournalOptions, JournalStore},
    memory::MemoryStore,
    sqlite::{SqliteOptions, SqliteStore},
    store::{Stores, SystemClock},
};
use factum_testing::{
    Fault, FaultRates, FaultyStore,
    bank::{Account, AccountCommand},
};

#[derive(Debug, Event)]
enum LineEvent {
    Written { line: u32 },
}

/// Every line of every book, in the order in which they were written.
#[derive(Debug, Default)]
struct Lines(Vec<u32>);

/// Writes the next lines, each in the book with this name.
struct Write(Vec<&'static str>);

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl DecisionModel for Lines {
    type Command = Write;
    type Event = LineEvent;
    type Rejection = Never;

    fn query(_: &Write) -> Matching {
        Matching::events::<LineEvent>()
    }

    fn evolve(&mut self, event: &LineEvent, _: &str) {
        let LineEvent::Written { line } = event;
        self.0.push(*line);
    }

    fn decide(
        &self,
        Write(books): &Write,
        _: &Context<'_>,
    ) -> Result<ModelDecision<LineEvent>, Never> {
        let next = self.0.len() as u32 + 1;
        let lines = (next..).zip(books);
        Ok(lines.fold(ModelDecision::nothing(), |decision, (line, book)| {
            decision.and("book", book, LineEvent::Written { line })
        }))
    }
}

/// The stream and version of each event in the log.
async fn log(app: &App) -> Vec<(String, u64)> {
    let mut read = app.read(ReadQuery::log());
    let mut places = Vec::new();
    while let Some(event) = read.next().await {
        let event = event.unwrap();
        places.push((event.stream().to_string(), event.version().value()));
    }
    places
}

fn places(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(stream, version)| ((*stream).to_owned(), *version)).collect()
}

/// Decides over a query and over several aggregates, in the order a, b, a; each decision once with
/// its answer and once without.
pub(crate) async fn is_kept(stores: Stores) {
    let clock = Arc::new(SystemClock);
    let faulty = Arc::new(FaultyStore::new(stores.events, 1, FaultRates::none(), clock));
    let stores = Stores { events: faulty.clone(), documents: stores.documents };
    let app = App::builder().open_stores(stores).await.unwrap();

    let write = || Write(vec!["a", "b", "a", "a", "b"]);
    for (is_lost, versions) in [(false, [3, 2]), (true, [6, 4])] {
        if is_lost {
            faulty.next_append(Fault::DropReply);
        }
        let decided = app.decide::<Lines>(write()).await.unwrap();
        let stored = decided.versions.iter().map(|(_, version)| version.value());
        assert_eq!(stored.collect::<Vec<_>>(), versions, "of a, of b");
        assert!(!decided.replayed, "it was sent once, however often it was repeated");
        // The next decision reads the events in this order.
        let nothing = app.decide::<Lines>(Write(vec![])).await.unwrap();
        assert_eq!(decided.model.0, nothing.model.0);
    }
    let once = [("book-a", 1), ("book-b", 1), ("book-a", 2), ("book-a", 3), ("book-b", 2)];
    let twice = [("book-a", 4), ("book-b", 3), ("book-a", 5), ("book-a", 6), ("book-b", 4)];
    assert_eq!(log(&app).await, places(&[once, twice].concat()));
    let book = ReadQuery::stream(StreamId::new("book", "a").unwrap());
    let mut read = app.read(book);
    let mut positions = Vec::new();
    while let Some(event) = read.next().await {
        positions.push(event.unwrap().position().value());
    }
    assert_eq!(positions, [1, 3, 4, 6, 8, 9]);

    for key in ["ada", "bob"] {
        let email = format!("{key}@example.org");
        let open = AccountCommand::Open { owner: key.into(), email };
        app.command::<Account>(key, open).await.unwrap();
        app.command::<Account>(key, AccountCommand::Deposit { cents: 50 }).await.unwrap();
    }
    let send = |to: &str, cents| AccountCommand::Send { to: to.into(), cents };
    let receive = |from: &str, cents| AccountCommand::Receive { from: from.into(), cents };
    for is_lost in [false, true] {
        if is_lost {
            faulty.next_append(Fault::DropReply);
        }
        // Bob has only the amount that comes from Ada, and Ada the amount that comes back.
        let round = app
            .transaction()
            .command::<Account>("ada", send("bob", 50))
            .command::<Account>("bob", receive("ada", 50))
            .command::<Account>("bob", send("ada", 100))
            .command::<Account>("ada", receive("bob", 100))
            .command::<Account>("ada", send("bob", 50))
            .command::<Account>("bob", receive("ada", 50));
        assert_eq!(round.await.unwrap().events, 6);
    }
    let mut expected = vec![];
    for base in [2, 5] {
        for (key, version) in
            [("ada", 1), ("bob", 1), ("bob", 2), ("ada", 2), ("ada", 3), ("bob", 3)]
        {
            expected.push((format!("account-{key}"), base + version));
        }
    }
    assert_eq!(log(&app).await[14..], expected);
    app.close().await.unwrap();
}

#[tokio::test]
async fn the_order_of_a_decision_is_kept_in_memory() {
    let store = Arc::new(MemoryStore::new());
    is_kept(Stores { events: store.clone(), documents: store }).await;
}

#[tokio::test]
async fn the_order_of_a_decision_is_kept_in_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(JournalStore::open(JournalOptions::new(folder.path())).await.unwrap());
    is_kept(Stores { events: store.clone(), documents: store }).await;
}

#[tokio::test]
async fn the_order_of_a_decision_is_kept_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let store = Arc::new(SqliteStore::open(SqliteOptions::new(&file)).await.unwrap());
    is_kept(Stores { events: store.clone(), documents: store }).await;
}
