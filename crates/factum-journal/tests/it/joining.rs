//! Changes through the process that has the journal open, by orders.

use std::{
    collections::HashMap, fmt::Display, fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc,
};

use async_trait::async_trait;
use factum_journal::{Access, JournalOptions, JournalStore};
use factum_kernel::{
    AppendBatch, AppendError, DocumentStore, EventId, EventStore, ExpectedRevision,
    ExpectedVersion, Position, ReadQuery, StoreError, StoreErrorKind, WriteBatch, WriteError,
};
use factum_testing::{
    ChildTest, ForwardDocuments, ForwardEvents, Forwarding,
    conformance::{OpenError, Setup, Stores, Subject},
    tell,
};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::fresh::{event, open, pages, stream};

/// A store that joins the process which has the journal open; here, both are this process.
#[derive(Debug)]
struct Joined {
    owner: JournalStore,
    joined: JournalStore,
}

#[async_trait]
impl ForwardEvents for Joined {
    fn events(&self) -> Arc<dyn EventStore> {
        Arc::new(self.joined.clone())
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.joined.close().await?;
        self.owner.close().await
    }
}

impl ForwardDocuments for Joined {
    fn documents(&self) -> Arc<dyn DocumentStore> {
        Arc::new(self.joined.clone())
    }
}

struct JoinedSubject {
    folder: TempDir,
}

impl JoinedSubject {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }
}

#[async_trait]
impl Subject for JoinedSubject {
    async fn open(&self, setup: &Setup) -> Result<Stores, OpenError> {
        let mut options = JournalOptions::new(self.folder.path())
            .with_access(Access::Join)
            .with_clock(setup.clock.clone());
        options.commit_delay = setup.commit_delay.clone();
        let owner = JournalStore::open(options).await?;
        let joined = join(self.folder.path()).await?;
        Ok(Stores::both(Arc::new(Forwarding(Joined { owner, joined }))))
    }
}

factum_testing::conformance!(suite: JoinedSubject::new());

async fn join(folder: &Path) -> Result<JournalStore, StoreError> {
    JournalStore::open(JournalOptions::new(folder).with_access(Access::Join)).await
}

/// The names in the inbox, except for the receiver's lock file.
fn inbox(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join("inbox")).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "desk");
    names.sort();
    names
}

async fn count(store: &JournalStore) -> usize {
    store.read(ReadQuery::log()).await.unwrap().events.len()
}

fn batch(name: &str) -> AppendBatch {
    AppendBatch::new().write(stream("all"), ExpectedVersion::Any, [event(name)])
}

#[tokio::test]
async fn what_is_ordered_is_seen_by_all_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let owner = open(folder.path()).await;
    let joined = join(folder.path()).await.unwrap();
    let mut head = owner.head();
    let appended = joined.append(batch("a")).await.unwrap();
    assert_eq!(*head.borrow_and_update(), appended.last);
    assert_eq!(*joined.head().borrow(), appended.last);
    let write = WriteBatch::new().put("key", ExpectedRevision::Absent, "value");
    joined.write(write.clone()).await.unwrap();
    assert!(matches!(joined.write(write).await, Err(WriteError::Conflict { entry: 0 })));
    for store in [&owner, &joined] {
        assert_eq!(count(store).await, 1);
        assert_eq!(store.get(b"key").await.unwrap().unwrap().value, "value");
    }
    assert_eq!(inbox(folder.path()), [""; 0]);
    let mode = fs::metadata(folder.path().join("inbox")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "only its owner enters");
    owner.close().await.unwrap();
}

#[tokio::test]
async fn a_journal_that_no_process_has_open_is_joined_by_opening_it() {
    let folder = tempfile::tempdir().unwrap();
    let alone = join(folder.path()).await.unwrap();
    alone.append(batch("a")).await.unwrap();
    let second = join(folder.path()).await.unwrap();
    second.append(batch("b")).await.unwrap();
    assert_eq!((count(&alone).await, count(&second).await), (2, 2));
    alone.close().await.unwrap();
}

/// The outcome, if the order was taken. On a slow machine the owner may not have come to its inbox
/// in time.
fn taken<T, E: Display>(sent: Result<T, E>) -> Option<T> {
    let untaken = |error: &E| assert!(error.to_string().contains("takes no orders"), "{error}");
    sent.inspect_err(untaken).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_join_one_new_journal_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let path = folder.path().to_owned();
            tokio::spawn(async move {
                let store = loop {
                    if let Some(store) = taken(join(&path).await) {
                        break store;
                    }
                };
                while taken(store.append(batch("a")).await).is_none() {}
                store
            })
        })
        .collect();
    let mut stores = Vec::new();
    for task in tasks {
        stores.push(task.await.unwrap());
    }
    for store in &stores {
        assert_eq!(count(store).await, 8);
    }
}

#[test]
fn orders_are_sent_outside_of_a_runtime_too() {
    let folder = tempfile::tempdir().unwrap();
    let owner = factum_testing::drive(open(folder.path()));
    let joined = factum_testing::drive(join(folder.path())).unwrap();
    factum_testing::drive(joined.append(batch("a"))).unwrap();
    assert_eq!(factum_testing::drive(count(&owner)), 1);
    factum_testing::drive(owner.close()).unwrap();
}

#[tokio::test]
async fn one_that_takes_no_orders_is_told_and_nothing_of_the_order_is_left() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).await.close().await.unwrap();
    // Like an older version: it has the lock, and does not look into an inbox.
    let lock = fs::File::options().write(true).open(folder.path().join("lock")).unwrap();
    lock.try_lock().unwrap();
    let joined = join(folder.path()).await.unwrap();
    let refused = joined.append(batch("a")).await.unwrap_err();
    assert_eq!(refused.store_kind(), Some(StoreErrorKind::Unavailable), "{refused:?}");
    assert!(refused.to_string().contains("takes no orders"), "{refused}");
    assert_eq!(inbox(folder.path()), [""; 0]);
    drop(lock);
    let owner = open(folder.path()).await;
    assert_eq!(count(&owner).await, 0);
    owner.close().await.unwrap();
}

#[tokio::test]
async fn an_order_whose_sender_has_gone_is_removed_and_not_carried_out() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).await.close().await.unwrap();
    let lock = fs::File::options().write(true).open(folder.path().join("lock")).unwrap();
    lock.try_lock().unwrap();
    let joined = join(folder.path()).await.unwrap();
    let waits = tokio::spawn(async move { joined.append(batch("a")).await });
    while !inbox(folder.path()).iter().any(|name| name.ends_with(".order")) {
        tokio::task::yield_now().await;
    }
    // The leftovers of a killed sender: each of its files, and no lock.
    let is_order = |name: &String| name.ends_with(".order");
    let order = inbox(folder.path()).into_iter().find(is_order).unwrap();
    let order = folder.path().join("inbox").join(order);
    for (n, part) in ["writing", "order", "taken", "answering", "answer"].iter().enumerate() {
        let name = format!("00000000-0000-7000-8000-00000000000{n}.{part}");
        fs::copy(&order, folder.path().join("inbox").join(name)).unwrap();
    }
    // This file is not an order's, so it stays.
    fs::write(folder.path().join("inbox").join("note.txt"), "note").unwrap();
    waits.abort();
    assert!(waits.await.is_err());
    drop(lock);
    let owner = open(folder.path()).await;
    let joined = join(folder.path()).await.unwrap();
    joined.append(batch("b")).await.unwrap();
    assert_eq!(count(&owner).await, 1, "only what has a sender");
    assert_eq!(inbox(folder.path()), ["note.txt"]);
    owner.close().await.unwrap();
}

#[tokio::test]
async fn orders_that_wait_when_the_journal_closes_are_carried_out_or_have_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let owner = open(folder.path()).await;
    let joined = join(folder.path()).await.unwrap();
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let joined = joined.clone();
            tokio::spawn(async move { joined.append(batch("a")).await })
        })
        .collect();
    let mut head = owner.head();
    head.wait_for(|head| *head >= Position::new(10)).await.unwrap();
    owner.close().await.unwrap();
    let owner = open(folder.path()).await;
    let mut stored = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => stored += 1,
            Err(error) => assert!(error.store_kind().is_some(), "it has no effect: {error:?}"),
        }
    }
    assert!(stored >= 10);
    assert_eq!(count(&owner).await, stored, "those that were acknowledged and no others");
    owner.close().await.unwrap();
}

const OWNER: ChildTest = ChildTest::new("joining::owner");

/// Not a test of its own: what the second process runs, until it is killed.
#[test]
fn owner() {
    let Some(path) = OWNER.order() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let _store = open(Path::new(&path)).await;
        tell("open");
        std::future::pending::<()>().await;
    });
}

/// The outcomes of orders.
#[derive(Debug, Default)]
struct Outcomes {
    stored: Vec<EventId>,
    refused: Vec<EventId>,
    unknown: Vec<AppendBatch>,
}

/// Sends orders until one fails.
async fn send_on(joined: JournalStore, stored: Arc<watch::Sender<usize>>) -> Outcomes {
    let mut outcomes = Outcomes::default();
    loop {
        let batch = batch("a");
        let id = batch.events().next().unwrap().id;
        match joined.append(batch.clone()).await {
            Ok(_) => outcomes.stored.push(id),
            Err(AppendError::Indeterminate(_)) => {
                outcomes.unknown.push(batch);
                return outcomes;
            }
            Err(AppendError::Store(_)) => {
                outcomes.refused.push(id);
                return outcomes;
            }
            Err(error) => panic!("{error:?}"),
        }
        stored.send_modify(|stored| *stored += 1);
    }
}

#[tokio::test]
async fn orders_to_a_process_that_is_killed_are_carried_out_once_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = Outcomes::default();
    for round in 0..10 {
        let (child, mut told) = OWNER.start(folder.path());
        assert_eq!(told.next().as_deref(), Some("open"));
        let joined = join(folder.path()).await.unwrap();
        let stored = Arc::new(watch::Sender::new(0));
        let tasks = [(); 4].map(|()| tokio::spawn(send_on(joined.clone(), stored.clone())));
        stored.subscribe().wait_for(|stored| *stored > 3 * round).await.unwrap();
        child.kill();
        for task in tasks {
            let outcomes = task.await.unwrap();
            all.stored.extend(outcomes.stored);
            all.refused.extend(outcomes.refused);
            all.unknown.extend(outcomes.unknown);
        }
    }
    assert!(!all.stored.is_empty());
    assert_eq!(all.refused.len() + all.unknown.len(), 40, "each task ended by the kill");
    let owner = open(folder.path()).await;
    for batch in all.unknown {
        all.stored.push(batch.events().next().unwrap().id);
        owner.append(batch.repeated()).await.unwrap();
    }
    let mut found = HashMap::new();
    for page in pages(&owner, ReadQuery::log()).await {
        page.events.iter().for_each(|event| *found.entry(event.id()).or_insert(0) += 1);
    }
    for id in &all.stored {
        assert_eq!(found.remove(id), Some(1), "what was acknowledged or repeated is there once");
    }
    assert!(found.is_empty(), "what was not carried out is there: {found:?}");
    owner.close().await.unwrap();
}

#[tokio::test]
async fn orders_reach_the_journal_in_whose_folder_they_are_wherever_it_was_moved() {
    let top = tempfile::tempdir().unwrap();
    let [here, there] = ["here", "there"].map(|name| top.path().join(name));
    let moved = open(&here).await;
    moved.append(batch("a")).await.unwrap();
    fs::rename(&here, &there).unwrap();
    let second = open(&here).await;
    let to_moved = join(&there).await.unwrap();
    let to_second = join(&here).await.unwrap();
    for _ in 0..20 {
        to_second.append(batch("b")).await.unwrap();
    }
    // The writer of that folder notices sooner or later, and stops.
    if let Err(refused) = to_moved.append(batch("c")).await {
        assert!(refused.to_string().contains("was moved"), "{refused}");
    }
    assert_eq!(count(&second).await, 20);
    second.close().await.unwrap();
    moved.close().await.unwrap();
}
