//! An aggregate that stays in memory while others write it too.

use factum_kernel::{
    Attempts, Committing, Draft, Drafted, EventStore, ExpectedVersion, Metadata, ReadQuery,
    Repository, RetryPolicy, SnapshotPolicy, StreamId, Tail,
};
use factum_testing::bank::{Account, AccountCommand, AccountRejection};

use crate::bench::{Bench, no_metadata, open, stream};

const DEPOSIT: AccountCommand = AccountCommand::Deposit { cents: 1 };

async fn draft(accounts: &Repository<Account>, key: &str) -> Draft<Account> {
    accounts.draft(&stream(key), &mut Attempts::new(RetryPolicy::new())).await.unwrap()
}

async fn catch_up(
    draft: &mut Draft<Account>,
    accounts: &Repository<Account>,
) -> Result<Tail, factum_kernel::LoadError> {
    draft.catch_up(accounts, &mut Attempts::new(RetryPolicy::new())).await
}

async fn commit(draft: &mut Draft<Account>, accounts: &Repository<Account>) -> Committing {
    draft.commit(accounts, &mut Attempts::new(RetryPolicy::new())).await.unwrap()
}

#[tokio::test]
async fn commands_share_an_append_and_keep_their_metadata() {
    let bench = Bench::new();
    bench.open("ada", &[]).await;
    let accounts = bench.accounts();
    let mut ada = draft(&accounts, "ada").await;
    for user in ["x", "y"] {
        let taken = ada.decide(&accounts, &DEPOSIT, &Metadata::new().with_user(user)).unwrap();
        assert!(matches!(taken, Drafted::Taken(events) if events.len() == 1));
    }
    let Committing::Stored(appended) = commit(&mut ada, &accounts).await else { panic!() };
    assert_eq!((appended.first.value(), appended.last.value()), (2, 3));
    assert_eq!((ada.version().value(), ada.position(), ada.event_count()), (3, appended.last, 0));
    let page = bench.store.read(ReadQuery::stream(stream("ada"))).await.unwrap();
    let users = page.events.iter().skip(1).map(|event| event.metadata().user.unwrap());
    assert!(users.eq(["x".into(), "y".into()]));
}

#[tokio::test]
async fn a_command_with_guards_goes_alone() {
    let bench = Bench::new();
    bench.open("ada", &[]).await;
    let accounts = bench.accounts();
    let taken = AccountCommand::Open { owner: "Bob".into(), email: "ada@example.org".into() };
    let mut bob = draft(&accounts, "bob").await;
    assert!(bob.decide(&accounts, &DEPOSIT, &no_metadata()).is_err());
    let put_off = bob.decide(&accounts, &taken, &no_metadata()).unwrap();
    assert!(matches!(put_off, Drafted::PutOff), "behind what was answered");
    bob.begin();
    assert!(matches!(bob.decide(&accounts, &taken, &no_metadata()), Ok(Drafted::Taken(_))));
    let behind = bob.decide(&accounts, &DEPOSIT, &no_metadata()).unwrap();
    assert!(matches!(behind, Drafted::PutOff) && bob.look().is_none());
    let refused = bob.commit(&accounts, &mut Attempts::new(RetryPolicy::new())).await;
    let Err(factum_kernel::ExecuteError::Rejected(no)) = refused else { panic!("{refused:?}") };
    assert_eq!(no, AccountRejection::EmailTaken);
}

#[tokio::test]
async fn what_others_did_meanwhile_is_folded() {
    let bench = Bench::new();
    bench.open("ada", &[5]).await;
    let accounts = bench.accounts();
    let mut ada = draft(&accounts, "ada").await;
    assert_eq!(catch_up(&mut ada, &accounts).await.unwrap(), Tail::Empty);
    bench.deposit("ada", &[7, 8]).await;
    assert_eq!(catch_up(&mut ada, &accounts).await.unwrap(), Tail::Folded);
    assert_eq!((ada.state().balance_cents, ada.version().value()), (20, 4));

    // History goes behind a summary that the draft has not seen.
    bench.deposit("ada", &[1]).await;
    accounts.summarise("ada", &no_metadata()).await.unwrap();
    assert_eq!(catch_up(&mut ada, &accounts).await.unwrap(), Tail::Folded);
    assert_eq!((ada.state().balance_cents, ada.version().value()), (21, 6));

    accounts.delete("ada", ExpectedVersion::Any).await.unwrap();
    assert_eq!(catch_up(&mut ada, &accounts).await.unwrap(), Tail::Folded);
    assert_eq!((ada.state(), ada.version().value()), (&Account::default(), 7));
    assert_eq!(catch_up(&mut ada, &accounts).await.unwrap(), Tail::Empty);
    assert!(matches!(ada.decide(&accounts, &open("ada"), &no_metadata()), Ok(Drafted::Taken(_))));
    assert!(matches!(commit(&mut ada, &accounts).await, Committing::Stored(_)));
    assert_eq!(bench.balance("ada").await, (0, 8));
}

#[tokio::test]
async fn one_that_was_overtaken_stores_nothing() {
    let bench = Bench::new();
    bench.open("ada", &[]).await;
    let accounts = bench.accounts();
    let mut ada = draft(&accounts, "ada").await;
    bench.deposit("ada", &[7]).await;
    ada.decide(&accounts, &DEPOSIT, &no_metadata()).unwrap();
    assert!(matches!(commit(&mut ada, &accounts).await, Committing::Overtaken));
    assert_eq!(bench.balance("ada").await, (7, 2));
}

/// As after a restore: another history stands behind the version that the draft is at.
#[tokio::test]
async fn another_history_is_loaded_from_its_beginning() {
    let bench = Bench::new();
    let restored = Bench::new();
    bench.open("ada", &[5]).await;
    restored.open("ada", &[9]).await;
    let mut ada = draft(&bench.accounts(), "ada").await;
    assert_eq!(catch_up(&mut ada, &restored.accounts()).await.unwrap(), Tail::Folded);
    assert_eq!((ada.state().balance_cents, ada.version().value()), (9, 2));
}

#[tokio::test]
async fn a_snapshot_is_taken_when_it_is_due_and_used_by_the_next_load() {
    let bench = Bench::new();
    bench.open("ada", &[]).await;
    let accounts = bench.accounts().with_snapshots(SnapshotPolicy::every_events(3)).unwrap();
    let mut ada = draft(&accounts, "ada").await;
    for taken in [0, 1, 1, 1, 2] {
        ada.decide(&accounts, &DEPOSIT, &no_metadata()).unwrap();
        assert!(matches!(commit(&mut ada, &accounts).await, Committing::Stored(_)));
        ada.snapshot_if_due(&accounts).await;
        assert_eq!(accounts.snapshot_stats().unwrap().taken(), taken);
    }
    assert_eq!(ada.snapshot_version().value(), 6);
    assert_eq!(accounts.load("ada").await.unwrap().state, *ada.state());
    assert_eq!(accounts.snapshot_stats().unwrap().used(), 1);
}

#[tokio::test]
async fn one_stays_with_its_store_and_its_category() {
    let bench = Bench::new();
    let other = Bench::new();
    bench.open("ada", &[]).await;
    other.open("ada", &[]).await;
    let accounts = bench.accounts();
    let others = other.accounts();
    let mut ada = draft(&accounts, "ada").await;
    ada.decide(&others, &DEPOSIT, &no_metadata()).expect_err("it is decided by another store's");
    assert!(matches!(ada.decide(&accounts, &DEPOSIT, &no_metadata()), Ok(Drafted::Taken(_))));
    let mut attempts = Attempts::new(RetryPolicy::new());
    let refused = ada.commit(&others, &mut attempts).await.unwrap_err();
    assert!(refused.to_string().contains("of another store than the draft"), "{refused}");
    assert_eq!((bench.balance("ada").await.1, other.balance("ada").await.1), (1, 1));
    assert!(matches!(commit(&mut ada, &accounts).await, Committing::Stored(_)), "it was kept");
    catch_up(&mut ada, &others).await.unwrap();
    assert!(ada.decide(&others, &DEPOSIT, &no_metadata()).is_ok(), "it is of that log now");

    let order = StreamId::new("order", "1").unwrap();
    let refused = accounts.draft(&order, &mut attempts).await.unwrap_err();
    assert!(refused.to_string().contains("is not one of this aggregate"), "{refused}");
}

#[tokio::test]
#[should_panic(expected = "its state holds lost events")]
async fn one_that_was_not_stored_can_not_be_gone_on_with() {
    let bench = Bench::new();
    bench.open("ada", &[]).await;
    let accounts = bench.accounts();
    let mut ada = draft(&accounts, "ada").await;
    ada.decide(&accounts, &DEPOSIT, &no_metadata()).unwrap();
    bench.deposit("ada", &[7]).await;
    assert!(matches!(commit(&mut ada, &accounts).await, Committing::Overtaken));
    ada.decide(&accounts, &DEPOSIT, &no_metadata()).unwrap();
    let _ = commit(&mut ada, &accounts).await;
}
