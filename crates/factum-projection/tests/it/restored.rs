//! A log that is restored while a consumer runs on it, and the remedy.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use factum_consumer::{
    Consumer, ConsumerHandle, ConsumerState, Consumers, HandleError, RewindError, StopReason,
    WaitError,
};
use factum_kernel::{
    AppendBatch, AppendError, Appended, ChangeError, Content, EventId, EventName, EventStore,
    ExpectedVersion, Guarantees, Kernel, NewEvent, Page, Position, ReadQuery, RecordedEvent,
    StoreError, StreamChange, StreamId, StreamInfo, Timestamp,
};
use factum_memory::{MemoryOptions, MemoryStore};
use factum_projection::{Documents, Freshness, ProjectionFn, Projections, ReadModel, Stale};
use factum_testing::{SeededIds, bank::AccountEvent};
use tokio::sync::watch;
use tracing::Level;
use tracing_subscriber::{Registry, prelude::*};

use crate::{
    bench::{Fails, LONG, counts_in_memory, options},
    log::Lines,
};

/// A server whose log can be replaced by another one.
struct Server {
    store: Mutex<Arc<MemoryStore>>,
    head: watch::Sender<Position>,
}

impl Server {
    fn store(&self) -> Arc<MemoryStore> {
        self.store.lock().unwrap().clone()
    }

    async fn restore(&self, names: &str) {
        *self.store.lock().unwrap() = log(names).await;
    }

    async fn deposit(&self, name: char) -> Position {
        let head = append(&self.store(), name).await;
        self.head.send_replace(head);
        head
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}

#[async_trait]
impl EventStore for Server {
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        self.store().append(batch).await
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        self.store().read(query).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo, StoreError> {
        self.store().stream_info(stream).await
    }

    async fn change(&self, s: &StreamId, change: StreamChange) -> Result<StreamInfo, ChangeError> {
        self.store().change(s, change).await
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }

    fn guarantees(&self) -> Guarantees {
        self.store().guarantees()
    }

    async fn close(&self) -> Result<(), StoreError> {
        EventStore::close(&*self.store()).await
    }
}

async fn append(store: &MemoryStore, name: char) -> Position {
    let id = EventId::derived(Timestamp::EPOCH, name.to_string().as_bytes());
    let payload = format!(r#"{{"cents":{}}}"#, u32::from(name) - u32::from('a'));
    let deposited = EventName::from_static("account.deposited");
    let event = NewEvent::new(id, deposited, Content::Json, payload);
    let stream = StreamId::new("account", "ada").unwrap();
    let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [event]);
    store.append(batch).await.unwrap().first
}

/// A log with one event for each letter. All logs have one lineage, so only their events differ.
async fn log(names: &str) -> Arc<MemoryStore> {
    let store =
        MemoryStore::with_options(MemoryOptions::new().with_ids(Arc::new(SeededIds::new(3))));
    for name in names.chars() {
        append(&store, name).await;
    }
    Arc::new(store)
}

struct Bank {
    server: Arc<Server>,
    consumers: Consumers,
    seen: Arc<Mutex<String>>,
}

impl Bank {
    async fn with(names: &str) -> Self {
        let store = Mutex::new(log(names).await);
        let head = watch::Sender::new(Position::new(names.len() as u64));
        let server = Arc::new(Server { store, head });
        let kernel = Kernel::new(server.clone(), Arc::new(MemoryStore::new()));
        let consumers = Consumers::new(kernel);
        Self { server, consumers, seen: Arc::default() }
    }

    async fn start(&self) -> ConsumerHandle {
        let seen = self.seen.clone();
        let note = move |event: AccountEvent, _: RecordedEvent| {
            if let AccountEvent::Deposited { cents } = event {
                seen.lock().unwrap().push(char::from(b'a' + cents as u8));
            }
            async { Ok::<(), HandleError>(()) }
        };
        self.consumers.start(Consumer::new("seen", note).with_options(options())).await.unwrap()
    }

    fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }
}

async fn has_diverged(consumer: &ConsumerHandle) {
    let mut health = consumer.watch();
    let is_over = |health: &factum_consumer::ConsumerHealth| {
        matches!(health.state, ConsumerState::Stopped(_))
    };
    let found = tokio::time::timeout(LONG, health.wait_for(is_over)).await.unwrap().unwrap();
    let ConsumerState::Stopped(StopReason::Diverged(text)) = &found.state else {
        panic!("{:?}", found.state)
    };
    assert!(text.to_string().contains("move its checkpoint"), "{text}");
}

#[tokio::test]
async fn a_consumer_at_the_end_of_a_log_that_was_restored_shorter_stops_and_can_be_rewound() {
    let bank = Bank::with("abcd").await;
    let consumer = bank.start().await;
    consumer.wait_for(Position::new(4), LONG).await.unwrap();
    bank.server.restore("ab").await;
    // The third event of another log.
    let position = bank.server.deposit('x').await;
    has_diverged(&consumer).await;
    let told = consumer.wait_for(position, LONG).await.unwrap_err();
    assert!(matches!(told, WaitError::Stopped { reason: StopReason::Diverged(_), .. }), "{told}");
    assert_eq!(bank.seen(), "abcd");
    // After a restart it reports the same again, before it shows any position.
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(Registry::default().with(lines.clone()));
    let again = bank.start().await;
    has_diverged(&again).await;
    assert!(lines.has(Level::ERROR, &["consumer=seen", "has diverged from the log", "rewound"]));
    // Its positions are of another log, so there is no lag, and above all none of 0.
    assert_eq!((again.health().lag_events(), again.health().lag), (None, None));

    let beyond = bank.consumers.rewind(consumer.name(), Position::new(9)).await;
    assert!(matches!(beyond, Err(RewindError::Beyond { .. })), "{beyond:?}");
    bank.consumers.rewind(consumer.name(), Position::new(2)).await.unwrap();
    let consumer = bank.start().await;
    consumer.wait_for(position, LONG).await.unwrap();
    assert_eq!(bank.seen(), "abcdx");
    let running = bank.consumers.rewind(consumer.name(), Position::new(2)).await;
    assert!(matches!(running, Err(RewindError::Running(_))), "{running:?}");
    let unknown = bank.consumers.rewind(&"nobody@2".parse().unwrap(), Position::ZERO).await;
    assert!(matches!(unknown, Err(RewindError::Unknown(_))), "{unknown:?}");
}

#[tokio::test]
async fn a_consumer_notices_a_longer_log_in_place_of_its_own() {
    let bank = Bank::with("abcd").await;
    let consumer = bank.start().await;
    consumer.wait_for(Position::new(4), LONG).await.unwrap();
    consumer.stop().await;
    bank.server.restore("abxyz").await;
    has_diverged(&bank.start().await).await;
    bank.consumers.rewind(consumer.name(), Position::new(2)).await.unwrap();
    bank.start().await.wait_for(Position::new(5), LONG).await.unwrap();
    assert_eq!(bank.seen(), "abcdxyz");
}

/// The stored position of the other log once was taken for one of this log.
#[tokio::test]
async fn documents_that_another_process_maintained_of_another_log_are_not_fresh() {
    let bank = Bank::with("abcd").await;
    let kernel = bank.consumers.kernel().clone();
    let nothing = ProjectionFn::<AccountEvent, Documents, _>::new("seen", 1, |_, _, _| Ok(()));
    let of = kernel.clone();
    let target = move |_: &_| Documents::new(&of);
    let seen = bank.consumers.maintain_fn(nothing, target, options()).await.unwrap();
    seen.wait_for(Position::new(4), LONG).await.unwrap();
    bank.consumers.close().await;
    let model = ReadModel::<()>::new(&kernel, "seen").unwrap();
    let fresh = model.wait_for(Position::new(4), LONG, Stale::Fail).await.unwrap();
    assert_eq!(fresh, Freshness::Fresh);
    bank.server.restore("abx").await;
    let told = model.wait_for(Position::new(3), LONG, Stale::Fail).await.unwrap_err();
    assert!(matches!(told, WaitError::Stopped { reason: StopReason::Diverged(_), .. }), "{told}");
}

#[tokio::test]
async fn a_model_in_memory_is_made_from_the_start_after_a_rewind() {
    let bank = Bank::with("abcd").await;
    let start = async || bank.consumers.fold(counts_in_memory(&Fails::default())).await.unwrap();
    let counts = start().await;
    counts.wait_for(Position::new(4), LONG).await.unwrap();
    counts.stop().await;
    bank.server.restore("abx").await;
    let counts = start().await;
    has_diverged(&counts).await;
    bank.consumers.rewind(counts.name(), Position::new(2)).await.unwrap();
    let counts = start().await;
    counts.wait_for(Position::new(3), LONG).await.unwrap();
    assert_eq!(counts.read().await.unwrap()["ada"].cents, [0, 1, 23]);
}
