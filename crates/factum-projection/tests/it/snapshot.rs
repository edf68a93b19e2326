//! Snapshots of models in memory: caches, also where the type of the model changes under one name
//! and version.

use std::sync::Arc;

use bytes::BytesMut;
use factum_core::{
    Cbor, Codec, ExpectedRevision, Kernel, Limits, RecordedEvent, TagKey, Value, WriteBatch,
};
use factum_memory::{MemoryOptions, MemoryStore};
use factum_projection::{HandleError, InMemory, MemoryTx, Projection, ProjectionHandle};
use factum_testing::bank::AccountEvent;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::bench::{Bench, LONG, options};

/// How much was put on accounts.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sum(u64);

/// How often something was put on accounts.
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

struct Deposits<M>(std::marker::PhantomData<fn() -> M>);

impl<M: Model> Projection for Deposits<M> {
    const NAME: &'static str = "deposits";
    type Event = AccountEvent;
    type Target = InMemory<M>;

    async fn project(
        &self,
        event: AccountEvent,
        _: &RecordedEvent,
        model: &mut MemoryTx<M>,
    ) -> Result<(), HandleError> {
        if let AccountEvent::Deposited { cents } = event {
            model.add(cents);
        }
        Ok(())
    }
}

/// Starts it in another program, and waits until it has come to the end.
async fn start<M: Model>(bench: &Bench) -> ProjectionHandle<Deposits<M>> {
    let (projection, target) = (Deposits::<M>(Default::default()), InMemory::new(&bench.kernel));
    let started = bench.again().consumers.project(projection, target, options()).unwrap();
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
    assert_eq!(*sum.target().read().await, Sum(12));
    sum.stop().await;
    let count = start::<Count>(&bench).await;
    assert_eq!(*count.target().read().await, Count(2));
    count.stop().await;
    let again = start::<Count>(&bench).await;
    assert_eq!((&*again.target().read().await, again.health().handled), (&Count(2), 0));
    again.stop().await;
    assert_eq!(*start::<Sum>(&bench).await.target().read().await, Sum(12));
}

#[tokio::test]
async fn a_snapshot_that_an_older_version_took_is_ignored_and_replaced() {
    let bench = deposits().await;
    start::<Sum>(&bench).await.stop().await;
    let (documents, key) = (bench.kernel.documents(), &b"$consumer/deposits@1/snapshot"[..]);
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
    assert_eq!(*made_again.target().read().await, Sum(12));
    assert!(made_again.health().handled > 0, "from the log");
    made_again.stop().await;
    let restored = start::<Sum>(&bench).await;
    assert_eq!((&*restored.target().read().await, restored.health().handled), (&Sum(12), 0));
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
    assert_eq!((again.target().read().await.0.len(), again.health().handled), (5_000, 0));
}
