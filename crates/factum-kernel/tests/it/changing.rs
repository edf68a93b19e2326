//! Snapshots of several types under one key: those of a program before and after a change, or of
//! two programs.

use std::fmt::Debug;

use factum_kernel::{
    Aggregate, At, Attempts, Context, DocumentStore, ExpectedRevision, KeyRange, Repository,
    RetryPolicy, ScanQuery, SnapshotPolicy, StreamVersion, Value, Verdict, WriteBatch,
};
use factum_testing::bank::{Account, AccountCommand, AccountEvent, AccountRejection};
use proptest::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::bench::{Bench, no_metadata, stream};

/// Has the fields of an account: its balance is all that was ever moved.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Turnover {
    owner: String,
    email: String,
    balance_cents: u64,
}

/// Has one of them: how many events there are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Count {
    balance_cents: u64,
}

/// Reads whatever is there.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Owner {
    owner: String,
    deposits: u64,
}

macro_rules! account {
    ($type:ty, $evolve:expr) => {
        impl Aggregate for $type {
            const CATEGORY: &'static str = Account::CATEGORY;
            type Command = AccountCommand;
            type Event = AccountEvent;
            type Rejection = AccountRejection;

            fn decide(&self, command: &AccountCommand, _: &Context<'_>) -> Verdict<Self> {
                let AccountCommand::Deposit { cents } = *command else {
                    return Err(AccountRejection::NotOpen);
                };
                Ok([AccountEvent::Deposited { cents }].into())
            }

            fn evolve(&mut self, event: &AccountEvent) {
                let evolve: fn(&mut Self, &AccountEvent) = $evolve;
                evolve(self, event);
            }
        }
    };
}

account!(Turnover, |turnover, event| match event {
    AccountEvent::Opened { owner, email } => {
        (turnover.owner, turnover.email) = (owner.clone(), email.clone());
    }
    AccountEvent::Deposited { cents } | AccountEvent::Withdrawn { cents } => {
        turnover.balance_cents += cents;
    }
    _ => {}
});
account!(Count, |count, _| count.balance_cents += 1);
account!(Owner, |owner, event| match event {
    AccountEvent::Opened { owner: name, .. } => owner.owner = name.clone(),
    AccountEvent::Deposited { .. } => owner.deposits += 1,
    _ => {}
});

/// A program that knows one of the types, and what it does.
#[derive(Debug, Clone, Copy)]
struct Program {
    knows: usize,
    command: Option<bool>,
    is_kept_in_memory: bool,
    looks_at: u64,
}

impl Program {
    fn command(&self) -> Option<AccountCommand> {
        self.command.map(|is_deposit| match is_deposit {
            true => AccountCommand::Deposit { cents: 10 },
            false => AccountCommand::Withdraw { cents: 3 },
        })
    }

    /// Does its work, and compares what it loads with what the log says.
    async fn run<A>(&self, bench: &Bench, policy: SnapshotPolicy)
    where
        A: Aggregate<Command = AccountCommand> + Serialize + DeserializeOwned + Debug,
    {
        let plain = Repository::<A>::new(bench.kernel.clone());
        let cached = plain.clone().with_snapshots(policy).unwrap();
        if let Some(command) = self.command() {
            // A rejection is as good a step as any.
            if self.is_kept_in_memory {
                let mut attempts = Attempts::new(RetryPolicy::new());
                let mut draft = cached.draft(&stream("ada"), &mut attempts).await.unwrap();
                if draft.decide(&cached, &command, &no_metadata()).is_ok() {
                    drop(draft.commit(&cached, &mut attempts).await.unwrap());
                    draft.snapshot_if_due(&cached).await;
                }
            } else {
                drop(cached.execute("ada", &command).await);
            }
        }
        for at in [At::Latest, At::Version(StreamVersion::new(self.looks_at))] {
            let cached = cached.load_at("ada", at).await;
            let plain = plain.load_at("ada", at).await;
            let seen =
                |loaded: factum_kernel::Loaded<A>| (format!("{:?}", loaded.state), loaded.version);
            assert_eq!(cached.map(seen).unwrap(), plain.map(seen).unwrap(), "{self:?} {at:?}");
        }
    }
}

fn program() -> impl Strategy<Value = Program> {
    let draws =
        (0..4_usize, proptest::option::weighted(0.8, any::<bool>()), any::<bool>(), 0..40_u64);
    draws.prop_map(|(knows, command, is_kept_in_memory, looks_at)| Program {
        knows,
        command,
        is_kept_in_memory,
        looks_at,
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("FACTUM_TEST_FULL").is_some() { 1_000 } else { 24 },
        failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn deleting_snapshots_changes_nothing_whatever_type_took_them(
        programs in proptest::collection::vec(program(), 1..40),
        events in 1..6_u64,
        kept in 1..4_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new();
            bench.open("ada", &[100]).await;
            let policy = SnapshotPolicy::every_events(events).with_kept(kept);
            for program in programs {
                match program.knows {
                    0 => program.run::<Account>(&bench, policy).await,
                    1 => program.run::<Turnover>(&bench, policy).await,
                    2 => program.run::<Count>(&bench, policy).await,
                    _ => program.run::<Owner>(&bench, policy).await,
                }
            }
        });
    }
}

/// The header of a snapshot is a `u32` of its length and CBOR. An older version named no type.
fn without_type(value: &[u8]) -> Vec<u8> {
    let (len, rest) = value.split_first_chunk().unwrap();
    let (head, body) = rest.split_at(u32::from_le_bytes(*len) as usize);
    let Ok(Value::Map(mut fields)) = <factum_kernel::Cbor as factum_kernel::Codec>::decode(head)
    else {
        panic!("the header is a map");
    };
    let before = fields.len();
    fields.retain(|(name, _)| name.as_text() != Some("state_type"));
    assert_eq!(fields.len(), before - 1, "the type is named");
    let mut head = bytes::BytesMut::new();
    <factum_kernel::Cbor as factum_kernel::Codec>::encode(&Value::Map(fields), &mut head).unwrap();
    [&(head.len() as u32).to_le_bytes()[..], &head, body].concat()
}

#[tokio::test]
async fn one_that_an_older_version_took_is_ignored_and_replaced() {
    let bench = Bench::new();
    let policy = SnapshotPolicy::every_events(5);
    let accounts = bench.accounts().with_snapshots(policy).unwrap();
    bench.open("ada", &[1; 8]).await;
    accounts.execute("ada", &AccountCommand::Deposit { cents: 1 }).await.unwrap();
    let all = || ScanQuery::new(KeyRange::prefix("$snapshot/"));
    let taken = bench.store.scan(all()).await.unwrap().documents.remove(0);
    let old = without_type(&taken.value);
    let batch = WriteBatch::new().put(taken.key, ExpectedRevision::Any, old);
    bench.store.write(batch).await.unwrap();

    assert_eq!(accounts.load("ada").await.unwrap().state.balance_cents, 9);
    let stats = accounts.snapshot_stats().unwrap();
    assert_eq!((stats.ignored(), stats.used()), (1, 0));
    accounts.execute("ada", &AccountCommand::Deposit { cents: 1 }).await.unwrap();
    assert_eq!(accounts.load("ada").await.unwrap().state.balance_cents, 10);
    assert_eq!(stats.used(), 1, "a good one has taken its place");
    assert_eq!(bench.store.scan(all()).await.unwrap().documents.len(), 1);
}
