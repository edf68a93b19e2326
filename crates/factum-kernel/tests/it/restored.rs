//! A log that is restored beneath a running subscription.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use factum_kernel::{
    AppendBatch, Category, Content, DivergedReason, EventId, EventName, EventStore,
    ExpectedVersion, Kernel, NewEvent, Position, ReadError, Scope, SubscribeFrom, Subscription,
    Timestamp,
};
use factum_memory::{MemoryOptions, MemoryStore};
use factum_testing::{
    Fault, FaultRates, FaultyStore, ForwardEvents, Forwarding, SeededIds, VirtualClock,
};

use crate::bench::stream;

/// A server behind whose name another log may stand from now on.
struct Server(Mutex<Arc<MemoryStore>>);

impl Server {
    fn store(&self) -> Arc<MemoryStore> {
        self.0.lock().unwrap().clone()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}

impl ForwardEvents for Server {
    fn events(&self) -> Arc<dyn EventStore> {
        self.store()
    }
}

fn id(name: char) -> EventId {
    EventId::derived(Timestamp::EPOCH, name.to_string().as_bytes())
}

async fn append(store: &dyn EventStore, names: &str) {
    for name in names.chars() {
        let deposited = EventName::from_static("account.deposited");
        let event = NewEvent::new(id(name), deposited, Content::Json, "{}");
        let batch = AppendBatch::new().write(stream("ada"), ExpectedVersion::Any, [event]);
        store.append(batch).await.unwrap();
    }
}

/// A log with an event per letter, always of the same lineage.
async fn log(names: &str, clock: &VirtualClock) -> Arc<MemoryStore> {
    let options = MemoryOptions::new().with_clock(Arc::new(clock.clone()));
    let store = MemoryStore::with_options(options.with_ids(Arc::new(SeededIds::new(3))));
    append(&store, names).await;
    Arc::new(store)
}

/// What a subscription that has seen `abcd` says next, when this log stands in its place.
async fn next_on(restored: &str, scope: Scope) -> Result<Position, ReadError> {
    let clock = VirtualClock::auto_advancing("2026-03-01T08:00:00Z".parse().unwrap());
    let server = Arc::new(Forwarding(Server(Mutex::new(log("abcd", &clock).await))));
    let documents = server.0.store();
    let kernel = Kernel::new(server.clone(), documents).with_clock(Arc::new(clock.clone()));
    let mut subscription = Subscription::new(&kernel, scope, SubscribeFrom::Start);
    for _ in 0..4 {
        subscription.next().await.unwrap().unwrap();
    }
    let other = log(restored, &VirtualClock::new("2026-03-01T08:00:00Z".parse().unwrap())).await;
    *server.0.0.lock().unwrap() = other;
    clock.advance(Duration::from_secs(1));
    Ok(subscription.next().await.unwrap()?.position())
}

#[tokio::test]
async fn a_log_restored_beneath_a_subscription_is_noticed_though_it_has_grown_past_it() {
    let account = Scope::Category(Category::new("account").unwrap());
    for scope in [Scope::Log, account] {
        for restored in ["abxyz", "abxyzabcd"] {
            let next = next_on(restored, scope.clone()).await;
            let Err(ReadError::Diverged(diverged)) = next else { panic!("{restored}: {next:?}") };
            let seen = (diverged.checkpoint.position.value(), diverged.checkpoint.event_id);
            assert_eq!(seen, (4, id('d')), "{restored}");
            assert_eq!(diverged.reason, DivergedReason::Event(id('y')), "{restored}");
        }
        let short = next_on("abx", scope.clone()).await;
        assert!(matches!(short, Err(ReadError::Diverged(_))), "{short:?}");
        assert_eq!(next_on("abcde", scope).await.unwrap(), Position::new(5), "nothing is lost");
    }
}

#[tokio::test]
async fn a_look_that_failed_is_made_again_before_the_next_page() {
    let clock = VirtualClock::auto_advancing("2026-03-01T08:00:00Z".parse().unwrap());
    let server = Arc::new(Forwarding(Server(Mutex::new(log("abcd", &clock).await))));
    let documents = server.0.store();
    let none = FaultRates::none();
    let faulty = Arc::new(FaultyStore::new(server.clone(), 1, none, Arc::new(clock.clone())));
    let kernel = Kernel::new(faulty.clone(), documents).with_clock(Arc::new(clock.clone()));
    let from = SubscribeFrom::Start;
    let mut pages = Subscription::new(&kernel, Scope::Log, from).into_pages();
    assert_eq!(pages.next().await.unwrap().events.len(), 4);
    let other = log("abxyz", &VirtualClock::new("2026-03-01T08:00:00Z".parse().unwrap())).await;
    *server.0.0.lock().unwrap() = other;
    clock.advance(Duration::from_secs(1));
    // The page comes; the look at the last event does not.
    faulty.next_read(Fault::Delay(Duration::ZERO));
    faulty.next_read(Fault::FailBefore);
    assert!(matches!(pages.next().await, Err(ReadError::Store(_))));
    let next = pages.next().await;
    assert!(matches!(next, Err(ReadError::Diverged(_))), "{next:?}");
}
