//! A projection with two versions, whose documents have different shapes, and a gate that slows it
//! down.

use std::{sync::Arc, time::Duration};

use factum_consumer::{ConsumerName, ConsumerOptions, FailurePolicy, HandleError};
use factum_kernel::{Kernel, Position, RecordedEvent, Timestamp};
use factum_projection::{
    BuildError, Documents, DocumentsTx, Index, Maintained, Projection, Projections, ReadModel,
};
use factum_testing::{VirtualClock, bank::AccountEvent};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::bench::{Bench, LONG};

/// Longer than any wait of a test: three minutes of real time on a [`swift`] clock.
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
/// The pause before an event is retried.
pub(crate) const PAUSE: Duration = Duration::from_millis(2);

/// The document of version 1: the deposits of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cents(pub(crate) Vec<u64>);

/// The document of version 2.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) count: u64,
    pub(crate) cents: u64,
}

impl From<Cents> for Ledger {
    fn from(Cents(cents): Cents) -> Self {
        Self { count: cents.len() as u64, cents: cents.iter().sum() }
    }
}

/// The number of events that may be projected; later events wait.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<watch::Sender<u64>>);

impl Default for Gate {
    fn default() -> Self {
        Self::open()
    }
}

impl Gate {
    pub(crate) fn open() -> Self {
        Self::after(u64::MAX)
    }

    pub(crate) fn after(events: u64) -> Self {
        Self(Arc::new(watch::Sender::new(events)))
    }

    pub(crate) fn let_pass(&self, events: u64) {
        self.0.send_replace(events);
    }

    /// Returns true if all events that may pass have passed.
    pub(crate) fn is_closed(&self) -> bool {
        *self.0.borrow() == 0
    }

    pub(crate) async fn pass(&self) {
        let mut left = self.0.subscribe();
        let _ = left.wait_for(|left| *left > 0).await;
        self.0.send_modify(|left| *left -= 1);
    }
}

pub(crate) struct Ledgers<const VERSION: u32>(pub(crate) Gate);

impl<const VERSION: u32> Projection for Ledgers<VERSION> {
    const NAME: &'static str = "ledgers";
    const VERSION: u32 = VERSION;
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = Documents;

    async fn project(
        &self,
        event: AccountEvent,
        recorded: &RecordedEvent,
        tx: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        self.0.pass().await;
        let AccountEvent::Deposited { cents } = event else { return Ok(()) };
        let key = recorded.stream().key();
        match VERSION {
            1 => tx.update(key, |it: &mut Cents| it.0.push(cents)).await,
            _ => {
                let add = |it: &mut Ledger| (it.count, it.cents) = (it.count + 1, it.cents + cents);
                tx.update(key, add).await
            }
        }
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        documents: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        documents.remove(deletion.stream().key());
        Ok(())
    }
}

pub(crate) fn documents<const VERSION: u32>(
    kernel: &Kernel,
) -> impl Fn(&ConsumerName) -> Documents + Send + Sync + use<VERSION> {
    let kernel = kernel.clone();
    move |_| match VERSION {
        1 => Documents::new(&kernel),
        _ => Documents::new(&kernel)
            .with_index(Index::new("cents", |ledger: &Ledger| [ledger.cents.into()])),
    }
}

impl Bench {
    pub(crate) async fn keep<const VERSION: u32>(&self, gate: &Gate) -> Maintained<Documents> {
        self.try_keep::<VERSION>(gate).await.unwrap()
    }

    pub(crate) async fn try_keep<const VERSION: u32>(
        &self,
        gate: &Gate,
    ) -> Result<Maintained<Documents>, BuildError> {
        let failure = FailurePolicy::new().with_pause(PAUSE, PAUSE);
        let options = ConsumerOptions::new().with_batch_events_max(7).with_failure(failure);
        let targets = documents::<VERSION>(&self.kernel);
        self.consumers.maintain(Ledgers::<VERSION>(gate.clone()), targets, options).await
    }

    /// The ledgers that any program sees, read as version 2.
    pub(crate) fn ledgers(&self) -> ReadModel<Ledger> {
        reader(ReadModel::new(&self.kernel, "ledgers").unwrap())
    }

    pub(crate) async fn deposits(&self, key: &str, count: u64) -> Position {
        let mut last = self.head();
        for cents in 1..=count {
            last = self.deposit(key, cents).await;
        }
        last
    }
}

pub(crate) fn reader(model: ReadModel<Ledger>) -> ReadModel<Ledger> {
    model.with_earlier(1, |cents: Cents| cents.into())
}

/// Waits until a condition holds.
pub(crate) async fn until<F: Future<Output = bool>>(is_so: impl Fn() -> F) {
    let wait = async {
        while !is_so().await {
            tokio::task::yield_now().await;
            pause().await;
        }
    };
    tokio::time::timeout(LONG, wait).await.expect("the condition never held");
}

/// A clock on which a second takes fifty milliseconds.
pub(crate) fn swift() -> VirtualClock {
    let clock = VirtualClock::new(Timestamp::from_micros(1_700_000_000_000_000));
    let moved = clock.clone();
    tokio::spawn(async move {
        loop {
            pause().await;
            moved.advance(Duration::from_millis(40));
        }
    });
    clock
}

#[expect(clippy::disallowed_methods, reason = "a condition outside the process's own notices")]
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}
