//! Events that change more documents than one write holds, and what one write holds.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use factum_consumer::{ConsumerOptions, HandleError, Partitions, StopReason, part::set_frozen};
use factum_kernel::{
    Document, DocumentStore, Kernel, KeyRange, Limits, RecordedEvent, Revision, ScanPage,
    ScanQuery, StoreError, SystemClock, TagKey, WriteBatch, WriteError,
};
use factum_memory::{MemoryOptions, MemoryStore};
use factum_projection::{
    Documents, DocumentsTx, Index, IndexRange, ModelQuery, Projection, ProjectionHandle,
    Projections, ReadModel,
};
use factum_testing::{
    FaultRates, FaultyDocuments, ForwardDocuments, Forwarding, bank::AccountEvent,
};

use crate::bench::{Bench, LONG, in_documents, options};

/// The documents that each deposit changes, each with an index entry. One write holds 32.
const DOCUMENTS: u64 = 100;

/// The deposits that a document has seen.
type Seen = Vec<u64>;

/// Each deposit is noted in every document. A withdrawal removes those of one half.
struct Everywhere;

impl Projection for Everywhere {
    const NAME: &'static str = "everywhere";
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = Documents;

    fn declare(&self, target: Documents) -> Documents {
        target.with_index(Index::new("last", |seen: &Seen| seen.last().map(|it| (*it).into())))
    }

    async fn project(
        &self,
        event: AccountEvent,
        recorded: &RecordedEvent,
        tx: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        match event {
            AccountEvent::Deposited { cents } => {
                for at in 0..DOCUMENTS {
                    let key = format!("{}/{at:03}", if at % 2 == 0 { "even" } else { "odd" });
                    tx.update(&key, |seen: &mut Seen| seen.push(cents)).await?;
                }
            }
            AccountEvent::Withdrawn { .. } => {
                tx.put("odd/new", &vec![recorded.position().value()])?;
                tx.remove_prefix("odd/").await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn forget(&self, _: &RecordedEvent, _: &mut DocumentsTx) -> Result<(), HandleError> {
        Ok(())
    }
}

fn store() -> Arc<MemoryStore> {
    let mut limits = Limits::default();
    limits.write_documents_max = 40;
    Arc::new(MemoryStore::with_options(MemoryOptions::new().with_limits(limits)))
}

fn on(store: &Arc<MemoryStore>, documents: Arc<dyn DocumentStore>) -> Bench {
    Bench::on(Kernel::new(store.clone(), documents).with_tag_key(TagKey::new([1; 32])))
}

async fn start(bench: &Bench) -> ProjectionHandle<Everywhere> {
    start_with(bench, options()).await
}

async fn start_with(bench: &Bench, options: ConsumerOptions) -> ProjectionHandle<Everywhere> {
    let target = Documents::new(&bench.kernel);
    bench.consumers.start_projection(Everywhere, target, options).await.unwrap()
}

/// Every document has seen exactly these deposits, the index says so, and nothing is left over.
async fn is_whole(bench: &Bench, deposits: &[u64]) {
    let documents = bench.kernel.documents();
    let all = ScanQuery::new(KeyRange::prefix("$model/everywhere@1/"));
    let page = documents.scan(all).await.unwrap();
    // The documents, their entries, and the declaration of the index.
    assert_eq!(page.documents.len() as u64, 2 * DOCUMENTS + 1);
    let entries = page.documents.iter().filter(|it| it.key.windows(6).any(|it| it == b"\xfflast/"));
    assert_eq!(entries.count() as u64, DOCUMENTS);
    for half in ["even", "odd"] {
        let prefix = format!("$model/everywhere@1/{half}/");
        let found = in_documents::<Seen>(&**documents, &prefix).await;
        assert_eq!(found.len() as u64, DOCUMENTS / 2);
        assert!(found.values().all(|seen| seen == deposits), "{found:?}");
    }
}

#[tokio::test]
async fn an_event_that_changes_more_than_one_write_holds_is_projected() {
    let store = store();
    let bench = on(&store, store.clone());
    bench.open("ada").await;
    bench.deposits("ada", 3).await;
    let everywhere = start(&bench).await;
    everywhere.wait_for(bench.head(), LONG).await.unwrap();
    is_whole(&bench, &[1, 2, 3]).await;
    assert_eq!((everywhere.health().parked, everywhere.health().handled), (0, 4));
    everywhere.stop().await;
    let again = start(&bench.again()).await;
    again.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(again.health().handled, 0);
}

/// Documents of a process that dies after some writes. The last one may still arrive.
#[derive(Debug)]
struct Dying {
    store: Arc<MemoryStore>,
    left: AtomicUsize,
    does_last_arrive: bool,
}

impl Dying {
    fn is_dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.is_dead() { Err(StoreError::closed()) } else { Ok(()) }
    }
}

#[async_trait]
impl ForwardDocuments for Dying {
    fn documents(&self) -> Arc<dyn DocumentStore> {
        self.store.clone()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Document>, StoreError> {
        self.check()?;
        self.store.get(key).await
    }

    async fn scan(&self, query: ScanQuery) -> Result<ScanPage, StoreError> {
        self.check()?;
        self.store.scan(query).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<Revision, WriteError> {
        self.check()?;
        self.left.fetch_sub(1, Ordering::SeqCst);
        if self.is_dead() {
            if self.does_last_arrive {
                self.store.write(batch).await?;
            }
            return Err(StoreError::closed().into());
        }
        self.store.write(batch).await
    }
}

/// A program that dies after some writes. Returns a program that does not; `None` if the first one
/// did not die.
async fn after_death(left: usize, does_last_arrive: bool) -> Option<Bench> {
    let store = store();
    let dying = Dying { store: store.clone(), left: AtomicUsize::new(left), does_last_arrive };
    let first = on(&store, Arc::new(Forwarding(dying)));
    let plain = on(&store, store.clone());
    plain.open("ada").await;
    plain.deposits("ada", 2).await;
    let dies = start(&first).await;
    if dies.wait_for(plain.head(), LONG).await.is_ok() {
        return None;
    }
    assert!(matches!(dies.stop().await, StopReason::Broken(_)));
    // The next process dies too, a few writes later.
    let dying = Dying { store: store.clone(), left: AtomicUsize::new(5), does_last_arrive };
    let second = on(&store, Arc::new(Forwarding(dying)));
    start(&second).await.stop().await;
    Some(plain)
}

async fn continues(plain: &Bench) {
    let everywhere = start(plain).await;
    everywhere.wait_for(plain.head(), LONG).await.unwrap();
    assert_eq!(everywhere.health().parked, 0);
    is_whole(plain, &[1, 2]).await;
}

#[tokio::test]
async fn a_death_between_any_two_writes_of_an_event_changes_no_result() {
    let mut deaths = 0;
    for does_last_arrive in [false, true] {
        for left in 1.. {
            let Some(plain) = after_death(left, does_last_arrive).await else { break };
            continues(&plain).await;
            deaths += 1;
        }
    }
    assert!(deaths > 60, "each of the writes was the last once: {deaths}");
}

/// While another build takes its place, a build leaves undone what was interrupted. It must not
/// handle the event again then.
#[tokio::test]
async fn a_death_in_a_handover_changes_no_result() {
    for left in 1.. {
        let Some(plain) = after_death(left, false).await else { break };
        let target = Documents::new(&plain.kernel);
        let name = "everywhere@1".parse().unwrap();
        set_frozen(&target, &name, 7, |_| true).await.unwrap();
        continues(&plain).await;
    }
}

#[tokio::test]
async fn lost_answers_and_failures_change_no_result() {
    // An event reads 200 documents and is some 20 writes, so most attempts meet a fault.
    let rates = FaultRates {
        fail_before: 0.02,
        drop_reply: 0.02,
        drop_request: 0.02,
        fail_read: 0.001,
        ..FaultRates::none()
    };
    for seed in 0..10 {
        let store = store();
        let clock = Arc::new(SystemClock);
        let faulty = Arc::new(FaultyDocuments::new(store.clone(), seed, rates, clock));
        let rough = on(&store, faulty);
        let plain = on(&store, store.clone());
        plain.open("ada").await;
        plain.deposits("ada", 2).await;
        start(&rough).await.wait_for(plain.head(), LONG).await.unwrap();
        is_whole(&plain, &[1, 2]).await;
    }
}

#[tokio::test]
async fn a_prefix_is_removed_however_many_documents_have_it() {
    let store = store();
    let bench = on(&store, store.clone());
    bench.open("ada").await;
    bench.deposits("ada", 1).await;
    bench.deposit("ada", 50).await;
    let withdraw = factum_testing::bank::AccountCommand::Withdraw { cents: 1 };
    bench.accounts.execute("ada", &withdraw).await.unwrap();
    start(&bench).await.wait_for(bench.head(), LONG).await.unwrap();
    let documents = bench.kernel.documents();
    let even = in_documents::<Seen>(&**documents, "$model/everywhere@1/even/").await;
    assert_eq!(even.len() as u64, DOCUMENTS / 2);
    let odd = in_documents::<Seen>(&**documents, "$model/everywhere@1/odd/").await;
    assert!(odd.is_empty(), "nor is one that the same event has put: {odd:?}");
    let entries = KeyRange::prefix(b"$model/everywhere@1/\xfflast/".to_vec());
    let entries = documents.scan(ScanQuery::new(entries)).await.unwrap().documents;
    assert_eq!(entries.len() as u64, DOCUMENTS / 2);
}

#[tokio::test]
async fn in_partitions_the_error_names_the_limit_and_the_remedy() {
    let store = store();
    let bench = on(&store, store.clone());
    bench.open("ada").await;
    bench.deposits("ada", 1).await;
    let everywhere = start_with(&bench, options().with_partitions(Partitions::by_stream(2))).await;
    everywhere.wait_for(bench.head(), LONG).await.unwrap();
    let letters = everywhere.dead_letters().await;
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert!(letter.error.contains("run the projection in one partition"), "{}", letter.error);
    assert!(letter.error.contains("documents=200 documents_max=32"), "{}", letter.error);
}

#[tokio::test]
async fn a_query_shows_a_large_event_when_it_is_waited_for() {
    let store = store();
    let bench = on(&store, store.clone());
    bench.open("ada").await;
    let kernel = bench.kernel.clone();
    let targets = move |_: &_| Documents::new(&kernel);
    let options = ConsumerOptions::new();
    let everywhere = bench.consumers.maintain(Everywhere, targets, options).await.unwrap();
    let model: ReadModel<Seen> = everywhere.read_model();
    for cents in 1..=3_u64 {
        let position = bench.deposit("ada", cents).await;
        everywhere.wait_for(position, LONG).await.unwrap();
        let query = ModelQuery::index("last", IndexRange::equal(cents)).with_documents_max(1_000);
        assert_eq!(model.list(query).await.unwrap().documents.len() as u64, DOCUMENTS);
    }
}
