//! Several aggregates, one append.

use factum_kernel::{
    AppendBatch, COMMAND_TAG, CommandId, EventId, EventStore, ExecuteError, ExpectedVersion,
    Kernel, Metadata, NamedCommand, Once, Position, ReadQuery, RetryPolicy, Tag, Timestamp,
    Transaction, TransactionError, encode_event,
};
use factum_testing::bank::{AccountCommand, AccountEvent, AccountRejection};

use crate::bench::{Bench, no_metadata, open, stream};

fn transfer(bench: &Bench, from: &str, to: &str, cents: u64) -> Transaction {
    let send = AccountCommand::Send { to: to.into(), cents };
    let receive = AccountCommand::Receive { from: from.into(), cents };
    Transaction::new(bench.kernel.clone()).execute(&bench.accounts(), from, send).execute(
        &bench.accounts(),
        to,
        receive,
    )
}

#[tokio::test]
async fn a_transfer_is_stored_on_both_sides_or_on_neither() {
    let bench = Bench::new();
    bench.open("ada", &[500]).await;
    bench.open("bob", &[]).await;
    let done = transfer(&bench, "ada", "bob", 200).commit(&no_metadata()).await.unwrap();
    assert_eq!((done.position, done.events), (Some(Position::new(5)), 2));
    assert_eq!((bench.balance("ada").await.0, bench.balance("bob").await.0), (300, 200));

    let refused = transfer(&bench, "ada", "nobody", 200).commit(&no_metadata()).await;
    let Err(TransactionError::Rejected(no)) = refused else { panic!("{refused:?}") };
    assert_eq!((no.step, no.downcast_ref()), (1, Some(&AccountRejection::NotOpen)));
    assert_eq!(no.to_string(), "the account is not open: step=1");
    assert_eq!(bench.balance("ada").await.0, 300, "the first step was not stored either");
}

#[tokio::test]
async fn steps_on_one_aggregate_see_one_another() {
    let bench = Bench::new();
    bench.open("ada", &[500]).await;
    transfer(&bench, "ada", "ada", 500).commit(&no_metadata()).await.unwrap();
    assert_eq!(bench.balance("ada").await, (500, 4));
    let accounts = bench.accounts();
    let twice = Transaction::new(bench.kernel.clone())
        .execute(&accounts, "ada", AccountCommand::Withdraw { cents: 300 })
        .execute(&accounts, "ada", AccountCommand::Withdraw { cents: 300 });
    let refused = twice.commit(&no_metadata()).await;
    let Err(TransactionError::Rejected(no)) = refused else { panic!("{refused:?}") };
    let short = AccountRejection::InsufficientFunds { balance_cents: 200 };
    assert_eq!((no.step, no.downcast_ref()), (1, Some(&short)));
}

#[tokio::test]
async fn a_guard_of_any_step_rejects_the_whole() {
    let bench = Bench::new();
    bench.open("ada", &[500]).await;
    let taken = AccountCommand::Open { owner: "Bob".into(), email: "ada@example.org".into() };
    let both = Transaction::new(bench.kernel.clone())
        .execute(&bench.accounts(), "carl", open("carl"))
        .execute(&bench.accounts(), "bob", taken);
    let refused = both.commit(&no_metadata()).await;
    let Err(TransactionError::Rejected(no)) = refused else { panic!("{refused:?}") };
    assert_eq!((no.step, no.downcast_ref()), (1, Some(&AccountRejection::EmailTaken)));
    assert_eq!(bench.balance("carl").await.1, 0);
}

#[tokio::test]
async fn a_guard_holds_for_what_earlier_steps_decided() {
    let bench = Bench::new();
    let same = || AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    let both = Transaction::new(bench.kernel.clone())
        .execute(&bench.accounts(), "ada", same())
        .execute(&bench.accounts(), "bob", same());
    let refused = both.commit(&no_metadata()).await;
    let Err(TransactionError::Rejected(no)) = refused else { panic!("{refused:?}") };
    assert_eq!((no.step, no.downcast_ref()), (1, Some(&AccountRejection::EmailTaken)));
}

#[tokio::test]
async fn a_repository_of_another_store_is_refused() {
    let bench = Bench::new();
    let other = Bench::new();
    let mixed =
        Transaction::new(bench.kernel.clone()).execute(&other.accounts(), "ada", open("ada"));
    let refused = mixed.commit(&no_metadata()).await;
    assert!(matches!(refused, Err(TransactionError::Store(_))), "{refused:?}");
    assert_eq!(bench.balance("ada").await.1 + other.balance("ada").await.1, 0);
}

#[tokio::test]
async fn a_step_hashes_with_the_key_of_its_own_repository() {
    let bench = Bench::new();
    let keyless = Kernel::new(bench.store.clone(), bench.store.clone());
    let opening = Transaction::new(keyless.with_clock(bench.kernel.clock().clone()));
    opening.execute(&bench.accounts(), "ada", open("ada")).commit(&no_metadata()).await.unwrap();
    let same = AccountCommand::Open { owner: "Bob".into(), email: "ada@example.org".into() };
    let refused = bench.accounts().execute("bob", &same).await;
    assert!(matches!(refused, Err(ExecuteError::Rejected(AccountRejection::EmailTaken))));
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_transfers_conserve_money() {
    let bench = Bench::new();
    for key in ["a", "b", "c"] {
        bench.open(key, &[1_000]).await;
    }
    let patient = RetryPolicy::new().with_conflicts_max(10_000);
    let pairs = [("a", "b"), ("b", "c"), ("c", "a"), ("b", "a"), ("c", "b"), ("a", "c")];
    let writers = pairs.map(|(from, to)| {
        let transfer = transfer(&bench, from, to, 7).with_retry(patient);
        tokio::spawn(async move {
            for _ in 0..25 {
                transfer.commit(&no_metadata()).await.unwrap();
            }
        })
    });
    for writer in writers {
        writer.await.unwrap();
    }
    for key in ["a", "b", "c"] {
        assert_eq!(bench.balance(key).await, (1_000, 102), "as much in as out");
    }
}

/// Appends a deposit as earlier versions of Factum stored it: with the tag, and without the names
/// of the commands.
async fn stored_before(bench: &Bench, key: &str, tag: &str, id: CommandId) {
    let event_id = EventId::derived(Timestamp::EPOCH, format!("{key} {tag}").as_bytes());
    let deposited = AccountEvent::Deposited { cents: 5 };
    let event = encode_event(&deposited, event_id, &Metadata::new(), None).unwrap();
    let event = event.with_tag(Tag::new(tag, id).unwrap());
    let batch = AppendBatch::new().write(stream(key), ExpectedVersion::Any, [event]);
    bench.store.append(batch).await.unwrap();
}

/// In earlier versions a command and a transaction could have one id.
#[tokio::test]
async fn a_transaction_of_an_earlier_version_is_found_beside_a_command_with_its_id() {
    let bench = Bench::new();
    bench.open("ada", &[500]).await;
    bench.open("bob", &[]).await;
    let id = CommandId::derived("order-17", "pay");
    let named = |key: &str| {
        NamedCommand::of_aggregate("account", key, &AccountCommand::Deposit { cents: 5 }).unwrap()
    };
    let transaction = |keys: &[&str]| {
        let new = Transaction::new(bench.kernel.clone());
        let once = Once::new(id, keys.iter().map(|key| named(key)));
        let deposit = |all: Transaction, key: &&str| {
            all.execute(&bench.accounts(), key, AccountCommand::Deposit { cents: 5 })
        };
        keys.iter().fold(new, deposit).once(once)
    };
    stored_before(&bench, "ada", COMMAND_TAG, id).await;
    stored_before(&bench, "bob", "$transaction", id).await;
    for keys in [&["ada"][..], &["ada", "bob"]] {
        let again = transaction(keys).commit(&no_metadata()).await.unwrap();
        assert!(again.replayed);
        let versions = again.versions.iter().map(|(stream, _)| stream.key());
        assert_eq!(versions.collect::<Vec<_>>(), ["bob"]);
    }
}

#[tokio::test]
async fn metadata_of_a_cause_names_no_command() {
    let bench = Bench::new();
    let metadata = Metadata::new().with(COMMAND_TAG, "of the cause").with("channel", "web");
    bench.accounts().execute_with("ada", &open("ada"), &metadata).await.unwrap();
    let deposit = AccountCommand::Deposit { cents: 5 };
    let transaction = Transaction::new(bench.kernel.clone());
    let transaction = transaction.execute(&bench.accounts(), "ada", deposit);
    transaction.commit(&metadata).await.unwrap();
    let page = bench.store.read(ReadQuery::stream(stream("ada"))).await.unwrap();
    assert_eq!(page.events.len(), 2);
    for event in page.events {
        assert_eq!(event.metadata(), Metadata::new().with("channel", "web"));
    }
}
