//! Snapshots of models in memory are only caches, also if the type of the model changes under one
//! name and version.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use bytes::BytesMut;
use factum_consumer::{ConsumerHealth, ConsumerState};
use factum_kernel::{
    Cbor, Codec, DocumentStore, ExpectedRevision, Kernel, KeyRange, Limits, Revision, ScanQuery,
    StoreError, TagKey, Value, WriteBatch, WriteError,
};
use factum_memory::{MemoryOptions, MemoryStore};
use factum_projection::{Fold, MemoryModel, Projections};
use factum_testing::{ForwardDocuments, Forwarding, bank::AccountEvent};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use crate::bench::{Bench, Fails, LONG, counts_in_memory, options};

/// The sum of the deposits.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sum(u64);

/// The number of deposits.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Count(u64);

trait Model: Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    fn add(&mut self, cents: u64);
}

impl Model for Sum {
    fn add(&mut self, cents: u64) {
        self.0 += cents;
    }
}

impl Model for Count {
    fn add(&mut self, _: u64) {
        self.0 += 1;
    }
}

/// Starts the model in another program, and waits until it has reached the head.
async fn start<M: Model>(bench: &Bench) -> MemoryModel<M> {
    start_version(bench, 1).await
}

async fn start_version<M: Model>(bench: &Bench, version: u32) -> MemoryModel<M> {
    let deposits = Fold::new("deposits", version, |model: &mut M, event, _| {
        if let AccountEvent::Deposited { cents } = event {
            model.add(cents);
        }
    });
    let started = bench.again().consumers.fold(deposits.with_options(options())).await.unwrap();
    started.wait_for(bench.head(), LONG).await.unwrap();
    started
}

async fn deposits() -> Bench {
    let bench = Bench::new();
    bench.open("ada").await;
    for cents in [5, 7] {
        bench.deposit("ada", cents).await;
    }
    bench
}

#[tokio::test]
async fn a_snapshot_of_another_type_is_not_taken_for_the_model() {
    let bench = deposits().await;
    let sum = start::<Sum>(&bench).await;
    assert_eq!(*sum.read().await.unwrap(), Sum(12));
    sum.stop().await;
    let count = start::<Count>(&bench).await;
    assert_eq!(*count.read().await.unwrap(), Count(2));
    count.stop().await;
    let again = start::<Count>(&bench).await;
    assert_eq!((&*again.read().await.unwrap(), again.health().handled), (&Count(2), 0));
    again.stop().await;
    assert_eq!(*start::<Sum>(&bench).await.read().await.unwrap(), Sum(12));
}

#[tokio::test]
async fn a_snapshot_that_an_older_version_took_is_ignored_and_replaced() {
    let bench = deposits().await;
    start::<Sum>(&bench).await.stop().await;
    let documents = bench.kernel.documents();
    let key = &b"$consumer/deposits@1/snapshot"[..];
    let taken = documents.get(key).await.unwrap().unwrap().value;
    let Ok(Value::Map(mut fields)) = Cbor::decode(&taken) else { panic!("it is a map") };
    let before = fields.len();
    fields.retain(|(name, _)| name.as_text() != Some("model_type"));
    assert_eq!(fields.len(), before - 1, "the type is named");
    let mut old = BytesMut::new();
    Cbor::encode(&Value::Map(fields), &mut old).unwrap();
    let batch = WriteBatch::new().put(key, ExpectedRevision::Any, old.freeze());
    documents.write(batch).await.unwrap();

    let made_again = start::<Sum>(&bench).await;
    assert_eq!(*made_again.read().await.unwrap(), Sum(12));
    assert!(made_again.health().handled > 0, "from the log");
    made_again.stop().await;
    let restored = start::<Sum>(&bench).await;
    assert_eq!((&*restored.read().await.unwrap(), restored.health().handled), (&Sum(12), 0));
}

/// A model that is much larger than a document may be.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Filled(Vec<u64>);

impl Model for Filled {
    fn add(&mut self, cents: u64) {
        self.0.extend([cents; 5_000]);
    }
}

#[tokio::test]
async fn a_snapshot_keeps_to_the_limits_of_its_store() {
    let mut limits = Limits::default();
    (limits.write_documents_max, limits.document_bytes_max) = (3, 1_000);
    let store = Arc::new(MemoryStore::with_options(MemoryOptions::new().with_limits(limits)));
    let bench = Bench::on(Kernel::new(store.clone(), store).with_tag_key(TagKey::new([1; 32])));
    bench.open("ada").await;
    bench.deposit("ada", 5).await;
    let filled = start::<Filled>(&bench).await;
    filled.stop().await;
    let again = start::<Filled>(&bench).await;
    assert_eq!((again.read().await.unwrap().0.len(), again.health().handled), (5_000, 0));
}

/// Documents that store no snapshot while they are full.
#[derive(Debug)]
struct Full {
    documents: Arc<MemoryStore>,
    is_full: Arc<AtomicBool>,
}

#[async_trait]
impl ForwardDocuments for Full {
    fn documents(&self) -> Arc<dyn DocumentStore> {
        self.documents.clone()
    }

    async fn write(&self, batch: WriteBatch) -> Result<Revision, WriteError> {
        let is_snapshot = |key: &[u8]| String::from_utf8_lossy(key).contains("/snapshot");
        let is_full = self.is_full.load(Ordering::SeqCst);
        if is_full && batch.entries().iter().any(|entry| is_snapshot(&entry.key)) {
            return Err(StoreError::unavailable("the disk is full").into());
        }
        self.documents.write(batch).await
    }
}

#[tokio::test]
async fn a_snapshot_that_fails_shows_in_the_health_until_one_is_stored() {
    let store = Arc::new(MemoryStore::new());
    let is_full = Arc::new(AtomicBool::new(true));
    let documents = Full { documents: store.clone(), is_full: is_full.clone() };
    let kernel = Kernel::new(store, Arc::new(Forwarding(documents)));
    let bench = Bench::on(kernel.with_tag_key(TagKey::new([1; 32])));
    bench.open("ada").await;
    let sum = Fold::new("sum", 1, |sum: &mut Sum, _: AccountEvent, _| sum.add(1));
    let sum = sum.with_options(options()).with_snapshot_events(1);
    let sum = bench.consumers.fold(sum).await.unwrap();
    let fails = |it: &ConsumerHealth| it.snapshot_error.as_deref() == Some("the disk is full");
    let mut health = sum.watch();
    timeout(LONG, health.wait_for(fails)).await.unwrap().unwrap();
    is_full.store(false, Ordering::SeqCst);
    let head = bench.deposit("ada", 1).await;
    timeout(LONG, health.wait_for(|it| it.snapshot_error.is_none())).await.unwrap().unwrap();
    sum.wait_for(head, LONG).await.unwrap();
    assert_eq!(*sum.read().await.unwrap(), Sum(2));
}

/// Snapshots of an old version used to stay forever.
#[tokio::test]
async fn a_new_version_is_made_from_the_whole_log_and_old_snapshots_are_removed() {
    let bench = deposits().await;
    start_version::<Sum>(&bench, 1).await.stop().await;
    let sum = start_version::<Sum>(&bench, 2).await;
    assert_eq!((&*sum.read().await.unwrap(), sum.health().handled), (&Sum(12), 3));
    sum.watch().wait_for(|it| it.state == ConsumerState::Live).await.unwrap();
    sum.stop().await;
    let documents = bench.kernel.documents();
    for (version, is_there) in [(1, false), (2, true)] {
        for prefix in ["$consumer/deposits@", "$model/deposits@"] {
            let range = KeyRange::prefix(format!("{prefix}{version}/"));
            let page = documents.scan(ScanQuery::new(range)).await.unwrap();
            assert_eq!(!page.documents.is_empty(), is_there, "{prefix}{version}");
        }
    }
    // A program of the old version continues.
    let old = start_version::<Sum>(&bench, 1).await;
    assert_eq!(*old.read().await.unwrap(), Sum(12));
}

#[tokio::test]
async fn models_of_two_processes_do_not_mix_their_snapshots() {
    let bench = Bench::new();
    bench.open("ada").await;
    let mut counts = Vec::new();
    for _ in 0..2 {
        let fold = counts_in_memory(&Fails::default()).with_snapshot_events(1);
        counts.push(bench.again().consumers.fold(fold).await.unwrap());
    }
    for cents in 1..=30 {
        let position = bench.deposit("ada", cents).await;
        for counts in &counts {
            counts.wait_for(position, LONG).await.unwrap();
        }
    }
    for counts in counts {
        counts.stop().await;
    }
    let again = bench.count_in_memory(&Fails::default()).await;
    again.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(again.health().handled, 0, "the last snapshot is whole");
    assert_eq!(*again.read().await.unwrap(), bench.fold().await);
}

/// The number and the sum of the deposits: the type of a later program, under the same name.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Both {
    cents: u64,
    count: u64,
}

impl Model for Both {
    fn add(&mut self, cents: u64) {
        self.cents += cents;
        self.count += 1;
    }
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Cent {
    cents: u64,
}

impl Model for Cent {
    fn add(&mut self, cents: u64) {
        self.cents += cents;
    }
}

#[tokio::test]
async fn a_snapshot_of_a_model_that_has_gained_a_field_is_ignored() {
    let bench = deposits().await;
    start::<Cent>(&bench).await.stop().await;
    let documents = bench.kernel.documents();
    let key = &b"$consumer/deposits@1/snapshot"[..];
    let mut taken = documents.get(key).await.unwrap().unwrap().value.to_vec();
    let at = taken.windows(6).position(|it| it == b"::Cent").unwrap();
    taken[at..at + 6].copy_from_slice(b"::Both");
    let batch = WriteBatch::new().put(key, ExpectedRevision::Any, taken);
    documents.write(batch).await.unwrap();
    let both = start::<Both>(&bench).await;
    assert_eq!(*both.read().await.unwrap(), Both { cents: 12, count: 2 });
}

/// A model that CBOR does not hold: `Some(None)` is read as `None`.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Answered(Option<Option<u64>>);

impl Model for Answered {
    fn add(&mut self, _: u64) {
        self.0 = Some(None);
    }
}

#[tokio::test]
async fn a_model_that_does_not_read_back_is_folded_again_and_never_restored_otherwise() {
    let bench = deposits().await;
    for _ in 0..2 {
        let answered = start::<Answered>(&bench).await;
        assert_eq!(*answered.read().await.unwrap(), Answered(Some(None)));
        assert_eq!(answered.health().handled, 3, "from the log");
        answered.stop().await;
    }
    let pieces = ScanQuery::new(KeyRange::prefix("$model/deposits@1/"));
    assert!(bench.kernel.documents().scan(pieces).await.unwrap().documents.is_empty());
}
