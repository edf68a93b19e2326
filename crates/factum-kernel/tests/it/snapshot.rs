//! Snapshots are caches: with, without, or with bad ones every outcome is the same.

use std::{convert::Infallible, sync::Arc};

use async_trait::async_trait;
use factum_kernel::{
    Aggregate, At, Context, Decision, Document, DocumentStore, EventStore, ExpectedRevision,
    ExpectedVersion, Kernel, KeyRange, Loaded, Repository, Revision, ScanPage, ScanQuery,
    SnapshotPolicy, StoreError, StreamChange, StreamVersion, TagKey, Verdict, WriteBatch,
    WriteError, category,
};
use factum_macros::Event;
use factum_testing::bank::{Account, AccountCommand};
use factum_testing::deletion;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::bench::{Bench, no_metadata, open, stream};

fn every(events: u64) -> SnapshotPolicy {
    SnapshotPolicy::every_events(events)
}

fn with(bench: &Bench, policy: SnapshotPolicy) -> Repository<Account> {
    bench.accounts().with_snapshots(policy).unwrap()
}

async fn fill(accounts: &Repository<Account>, deposits: u64) {
    accounts.execute("ada", &open("ada")).await.unwrap();
    for _ in 0..deposits {
        accounts.execute("ada", &AccountCommand::Deposit { cents: 1 }).await.unwrap();
    }
}

async fn snapshots(bench: &Bench) -> Vec<Document> {
    let all = ScanQuery::new(KeyRange::prefix("$snapshot/"));
    bench.store.scan(all).await.unwrap().documents
}

#[tokio::test]
async fn snapshots_are_taken_used_and_the_old_ones_removed() {
    let bench = Bench::new();
    let accounts = with(&bench, every(10).with_kept(2));
    fill(&accounts, 49).await;
    let stats = accounts.snapshot_stats().unwrap();
    assert_eq!(stats.taken(), 5);
    assert_eq!(snapshots(&bench).await.len(), 2);
    let used = stats.used();
    assert_eq!(accounts.load("ada").await.unwrap().state.balance_cents, 49);
    assert_eq!(stats.used(), used + 1);
    assert_eq!((stats.ignored(), stats.failed()), (0, 0));
    let earlier = accounts.load_at("ada", At::Version(StreamVersion::new(41))).await.unwrap();
    assert_eq!(earlier.state.balance_cents, 40, "from the older of the two");
}

#[tokio::test]
async fn one_that_does_not_decode_is_ignored_counted_and_replaced() {
    let bench = Bench::new();
    let accounts = with(&bench, every(10));
    fill(&accounts, 15).await;
    let key = snapshots(&bench).await.remove(0).key;
    for garbage in [&b""[..], b"\x05\0\0\0", b"\xff\xff\xff\xff....", b"no snapshot at all"] {
        let batch = WriteBatch::new().put(key.clone(), ExpectedRevision::Any, garbage);
        bench.store.write(batch).await.unwrap();
        assert_eq!(accounts.load("ada").await.unwrap().state.balance_cents, 15);
    }
    let stats = accounts.snapshot_stats().unwrap();
    assert_eq!(stats.ignored(), 4);
    accounts.execute("ada", &AccountCommand::Deposit { cents: 1 }).await.unwrap();
    let used = stats.used();
    accounts.load("ada").await.unwrap();
    assert_eq!(stats.used(), used + 1, "a good one has taken its place");
}

#[tokio::test]
async fn one_of_another_shape_is_ignored() {
    let bench = Bench::new();
    fill(&with(&bench, every(10)), 15).await;
    let newer = with(&bench, every(10).with_state_version(2));
    assert_eq!(newer.load("ada").await.unwrap().state.balance_cents, 15);
    assert_eq!(newer.snapshot_stats().unwrap().ignored(), 1);
}

#[tokio::test]
async fn a_large_state_is_stored_compressed_and_reads_the_same() {
    let bench = Bench::new();
    let long = "a".repeat(10_000);
    let command = AccountCommand::Open { owner: long.clone(), email: "a@example.org".into() };
    for (key, bytes) in [("small", usize::MAX), ("large", 1_000)] {
        let accounts = with(&bench, every(1).with_compress_above_bytes(bytes));
        let email = format!("{key}@example.org");
        let open = AccountCommand::Open { owner: long.clone(), email };
        accounts.execute(key, &open).await.unwrap();
        assert_eq!(accounts.load(key).await.unwrap().state.owner, long);
        assert_eq!(accounts.snapshot_stats().unwrap().used(), 1);
    }
    drop(command);
    let sizes: Vec<_> = snapshots(&bench).await.iter().map(|d| d.value.len()).collect();
    assert!(sizes[0] < 1_000 && sizes[1] > 10_000, "large before small: {sizes:?}");
}

#[tokio::test]
async fn one_that_is_ahead_of_a_restored_log_is_ignored() {
    let bench = Bench::new();
    fill(&with(&bench, every(10)), 15).await;
    let restored = Bench::new();
    for document in snapshots(&bench).await {
        let batch = WriteBatch::new().put(document.key, ExpectedRevision::Any, document.value);
        restored.store.write(batch).await.unwrap();
    }
    let accounts = with(&restored, every(10));
    accounts.execute("ada", &open("ada")).await.unwrap();
    assert_eq!(accounts.load("ada").await.unwrap().state.balance_cents, 0);
    assert_eq!(accounts.snapshot_stats().unwrap().ignored(), 1);
    assert!(snapshots(&restored).await.is_empty(), "and it stands before no other one");
}

#[tokio::test]
async fn large_ones_are_removed_like_any_other() {
    let bench = Bench::new();
    let policy = every(1).with_kept(2).with_compress_above_bytes(usize::MAX);
    let accounts = with(&bench, policy);
    let owner = "a".repeat(600_000);
    let email = "a@example.org".into();
    accounts.execute("ada", &AccountCommand::Open { owner, email }).await.unwrap();
    for _ in 0..5 {
        accounts.execute("ada", &AccountCommand::Deposit { cents: 1 }).await.unwrap();
    }
    let keys = ScanQuery::new(KeyRange::prefix("$snapshot/")).with_bytes_max(usize::MAX);
    assert_eq!(bench.store.scan(keys).await.unwrap().documents.len(), 2);
}

#[tokio::test]
async fn a_deleted_aggregate_leaves_none() {
    let bench = Bench::new();
    let accounts = with(&bench, every(10));
    fill(&accounts, 15).await;
    accounts.delete("ada", ExpectedVersion::StreamExists).await.unwrap();
    assert!(snapshots(&bench).await.is_empty(), "nothing of the customer is left");
    assert_eq!(accounts.load("ada").await.unwrap().state, Account::default());
}

#[tokio::test]
async fn one_from_before_a_deletion_is_ignored() {
    let bench = Bench::new();
    let accounts = with(&bench, every(10));
    fill(&accounts, 15).await;
    bench.store.append(deletion(stream("ada"))).await.unwrap();
    assert_eq!(accounts.load("ada").await.unwrap().state, Account::default());
}

#[tokio::test]
async fn one_does_not_make_a_truncated_stream_loadable() {
    let bench = Bench::new();
    let accounts = with(&bench, every(10));
    fill(&accounts, 15).await;
    let before = StreamChange::TruncateBefore(StreamVersion::new(5));
    bench.store.change(&stream("ada"), before).await.unwrap();
    let cached = accounts.load("ada").await;
    let plain = bench.accounts().load("ada").await;
    assert!(cached.is_err() && plain.is_err(), "deleting all snapshots must change nothing");
}

#[tokio::test]
async fn one_is_used_in_a_stream_that_begins_at_a_summary() {
    let bench = Bench::new();
    let accounts = with(&bench, every(10));
    fill(&accounts, 5).await;
    accounts.summarise("ada", &no_metadata()).await.unwrap();
    for _ in 0..20 {
        accounts.execute("ada", &AccountCommand::Deposit { cents: 1 }).await.unwrap();
    }
    let stats = accounts.snapshot_stats().unwrap();
    let used = stats.used();
    assert_eq!(accounts.load("ada").await.unwrap().state.balance_cents, 25);
    assert_eq!(stats.used(), used + 1);
}

#[derive(Debug, Clone, Event)]
#[event(crate = factum_kernel, prefix = "tally")]
enum TallyEvent {
    Counted { votes: u64 },
}

/// Two programs, the later of which counts the events too.
macro_rules! tally {
    ($program:ident { $($field:ident += $of:ident),* }) => {
        mod $program {
            use super::*;

            #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
            #[serde(default)]
            pub(super) struct Tally {
                $(pub(super) $field: u64,)*
            }

            impl Aggregate for Tally {
                const CATEGORY: &'static str = category!("tally");
                type Command = u64;
                type Event = TallyEvent;
                type Rejection = Infallible;

                fn decide(&self, votes: &u64, _: &Context<'_>) -> Verdict<Self> {
                    Ok(Decision::from([TallyEvent::Counted { votes: *votes }]))
                }

                fn evolve(&mut self, event: &TallyEvent) {
                    let TallyEvent::Counted { votes } = event;
                    let one = &1;
                    let of = Of { votes: *votes, one: *one };
                    $(self.$field += of.$of;)*
                }
            }
        }
    };
}

/// What an event adds.
struct Of {
    votes: u64,
    one: u64,
}

tally!(old { votes += votes });
tally!(new { votes += votes, counts += one });

/// Makes the snapshots of the old program look as if the type of the new one had written them: the
/// program is deployed again, and the type keeps its name.
async fn rename_types(bench: &Bench) {
    for document in snapshots(bench).await {
        let mut value = document.value.to_vec();
        let name = b"::old::Tally";
        let at = value.windows(name.len()).position(|it| it == name).unwrap();
        value[at..at + name.len()].copy_from_slice(b"::new::Tally");
        let batch = WriteBatch::new().put(document.key, ExpectedRevision::Any, value);
        bench.store.write(batch).await.unwrap();
    }
}

#[tokio::test]
async fn one_of_a_state_that_has_gained_a_field_is_ignored_counted_and_replaced() {
    let bench = Bench::new();
    let before = Repository::<old::Tally>::new(bench.kernel.clone());
    let before = before.with_snapshots(every(3)).unwrap();
    for votes in 1..=4 {
        before.execute("a", &votes).await.unwrap();
    }
    rename_types(&bench).await;
    let after = Repository::<new::Tally>::new(bench.kernel.clone());
    let after = after.with_snapshots(every(3)).unwrap();
    assert_eq!(after.load("a").await.unwrap().state, new::Tally { votes: 10, counts: 4 });
    let stats = after.snapshot_stats().unwrap();
    assert_eq!((stats.used(), stats.ignored()), (0, 1));
    after.execute("a", &5).await.unwrap();
    assert_eq!(after.load("a").await.unwrap().state, new::Tally { votes: 15, counts: 5 });
    assert_eq!((stats.used(), stats.ignored(), stats.taken()), (1, 2, 1));
    assert_eq!(snapshots(&bench).await.len(), 1, "the old one is gone");
}

/// A state that CBOR does not hold: `Some(None)` is read as `None`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Ballot {
    votes: u64,
    answer: Option<Option<bool>>,
}

impl Aggregate for Ballot {
    const CATEGORY: &'static str = category!("tally");
    type Command = u64;
    type Event = TallyEvent;
    type Rejection = Infallible;

    fn decide(&self, votes: &u64, _: &Context<'_>) -> Verdict<Self> {
        Ok(Decision::from([TallyEvent::Counted { votes: *votes }]))
    }

    fn evolve(&mut self, event: &TallyEvent) {
        let TallyEvent::Counted { votes } = event;
        self.votes += votes;
        self.answer = (self.votes > 3).then_some(None);
    }
}

#[tokio::test]
async fn one_of_a_state_that_does_not_read_back_is_never_stored_and_the_reason_is_told() {
    let bench = Bench::new();
    let ballots = Repository::<Ballot>::new(bench.kernel.clone());
    let ballots = ballots.with_snapshots(every(1)).unwrap();
    let stats = ballots.snapshot_stats().unwrap();
    ballots.execute("a", &3).await.unwrap();
    assert_eq!((stats.taken(), stats.unreadable()), (1, None));
    for _ in 0..9 {
        ballots.execute("a", &1).await.unwrap();
    }
    let unreadable = stats.unreadable().unwrap();
    assert!(unreadable.contains("field=answer: stream=tally-a"), "{unreadable}");
    assert_eq!((stats.taken(), stats.failed()), (1, 0), "and no more are tried");
    let loaded = ballots.load("a").await.unwrap().state;
    assert_eq!((loaded.votes, loaded.answer), (12, Some(None)));
}

/// Documents that never answer.
#[derive(Debug)]
struct Hung;

#[async_trait]
impl DocumentStore for Hung {
    async fn get(&self, _: &[u8]) -> Result<Option<Document>, StoreError> {
        std::future::pending().await
    }

    async fn scan(&self, _: ScanQuery) -> Result<ScanPage, StoreError> {
        Err(StoreError::unavailable("the documents are down"))
    }

    async fn write(&self, _: WriteBatch) -> Result<Revision, WriteError> {
        std::future::pending().await
    }

    async fn clear(&self, _: KeyRange) -> Result<(), StoreError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn documents_that_hang_do_not_withhold_the_answer() {
    let bench = Bench::new();
    let kernel = Kernel::new(bench.store.clone(), Arc::new(Hung))
        .with_clock(bench.kernel.clock().clone())
        .with_tag_key(TagKey::new([1; 32]));
    let accounts = Repository::<Account>::new(kernel).with_snapshots(every(1)).unwrap();
    accounts.execute("ada", &open("ada")).await.unwrap();
    let stats = accounts.snapshot_stats().unwrap();
    assert_eq!((stats.taken(), stats.failed()), (0, 2), "the look-up and the writing");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("FACTUM_TEST_FULL").is_some() { 1_000 } else { 24 },
        failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn snapshot_and_tail_equal_the_fold_of_everything(
        amounts in proptest::collection::vec((any::<bool>(), 1..100_u64), 0..60),
        events in 1..20_u64,
        kept in 1..4_usize,
        summarised in proptest::option::of(0..60_usize),
        upto in 0..70_u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new();
            let accounts = with(&bench, every(events).with_kept(kept));
            accounts.execute("ada", &open("ada")).await.unwrap();
            for (at, (is_deposit, cents)) in amounts.into_iter().enumerate() {
                let command = match is_deposit {
                    true => AccountCommand::Deposit { cents },
                    false => AccountCommand::Withdraw { cents },
                };
                // A rejected withdrawal is as good a step as any.
                drop(accounts.execute("ada", &command).await);
                if summarised == Some(at) {
                    accounts.summarise("ada", &no_metadata()).await.unwrap();
                }
            }
            for at in [At::Latest, At::Version(StreamVersion::new(upto))] {
                let cached = accounts.load_at("ada", at).await.map_err(|e| e.to_string());
                let folded = bench.accounts().load_at("ada", at).await.map_err(|e| e.to_string());
                let seen = |loaded: Loaded<Account>| (loaded.state, loaded.version);
                assert_eq!(cached.map(seen), folded.map(seen), "{at:?}");
            }
        });
    }
}
