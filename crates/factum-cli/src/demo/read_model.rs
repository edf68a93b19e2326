//! The bank's read models: a list of accounts with an index by balance, and statistics. They are
//! maintained during the month and then compared with the ledger of the audit.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use factum::{
    ConsumerOptions, Consumers, Documents, DocumentsTx, Fold, HandleError, Index, IndexRange,
    Maintained, ModelQuery, Position, Projection, Projections, ReadQuery, RecordedEvent,
    consumer::{StopReason, WaitError},
    projection::{BuildError, MemoryModel, QueryError},
    store::SystemClock,
};
use factum_testing::bank::AccountEvent;
use serde::{Deserialize, Serialize};

use crate::{
    demo::{Work, bank::Bank, ledger::Ledger},
    exit::{Exit, Failure},
    progress::Progress,
};

/// The number of the richest accounts in the report.
const RICHEST_MAX: usize = 5;
/// The interval at which an interrupt is looked for while the read models catch up.
const LOOK: Duration = Duration::from_millis(100);
/// The number of rows on a page of the list.
const PAGE: usize = 1_000;
const CATEGORY: &str = "account";

/// A row of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) owner: String,
    /// The balance. It is signed, so that a forbidden overdraft shows.
    pub(crate) cents: i128,
    version: u64,
}

/// The list of accounts: one document for each, under the account's key.
struct AccountList;

impl Projection for AccountList {
    const NAME: &'static str = "account-list";
    const CATEGORIES: &[&str] = &[CATEGORY];
    type Event = AccountEvent;
    type Target = Documents;

    fn declare(&self, documents: Documents) -> Documents {
        documents.with_index(Index::new("balance", |row: &Row| [row.cents.into()]))
    }

    async fn project(
        &self,
        event: AccountEvent,
        recorded: &RecordedEvent,
        rows: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let change = |row: &mut Row| {
            row.version = recorded.version().value();
            match event {
                AccountEvent::Opened { owner, .. } => row.owner = owner,
                AccountEvent::Deposited { cents } | AccountEvent::Received { cents, .. } => {
                    row.cents += i128::from(cents);
                }
                AccountEvent::Withdrawn { cents } | AccountEvent::Sent { cents, .. } => {
                    row.cents -= i128::from(cents);
                }
                AccountEvent::Summarised { owner, balance_cents, .. } => {
                    (row.owner, row.cents) = (owner, i128::from(balance_cents));
                }
            }
        };
        rows.update(recorded.stream().key(), change).await
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        rows: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        rows.remove(deletion.stream().key());
        Ok(())
    }
}

/// The totals over all accounts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Statistics {
    pub(crate) accounts: u64,
    pub(crate) held_cents: i128,
    pub(crate) paid_in_cents: i128,
    pub(crate) paid_out_cents: i128,
    pub(crate) transfers: u64,
    /// The last position that the totals include.
    through: u64,
}

impl Statistics {
    /// Starts the statistics; they continue where they were left.
    async fn start(consumers: &Consumers) -> Result<MemoryModel<Self>, Failure> {
        let apply = |bank: &mut Self, event: AccountEvent, recorded: &RecordedEvent| {
            if recorded.stream().category() == CATEGORY {
                bank.through = recorded.position().value();
                bank.add(&event);
            }
        };
        let started = consumers.fold(Fold::new("bank-statistics", 1, apply));
        started.await.map_err(|error| Failure::internal(error.to_string()))
    }

    fn add(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { .. } => self.accounts += 1,
            AccountEvent::Deposited { cents } => {
                self.paid_in_cents += i128::from(*cents);
                self.held_cents += i128::from(*cents);
            }
            AccountEvent::Withdrawn { cents } => {
                self.paid_out_cents += i128::from(*cents);
                self.held_cents -= i128::from(*cents);
            }
            AccountEvent::Sent { cents, .. } => self.held_cents -= i128::from(*cents),
            AccountEvent::Received { cents, .. } => {
                self.transfers += 1;
                self.held_cents += i128::from(*cents);
            }
            // The summarised events were counted already.
            AccountEvent::Summarised { .. } => {}
        }
    }

    fn of(ledger: &Ledger) -> Self {
        Self {
            accounts: ledger.accounts.len() as u64,
            held_cents: ledger.total_cents(),
            paid_in_cents: ledger.paid_in_cents,
            paid_out_cents: ledger.paid_out_cents,
            transfers: ledger.transfers,
            through: 0,
        }
    }
}

/// The running read models.
#[derive(Debug)]
pub(crate) struct ReadModels {
    consumers: Consumers,
    list: Maintained<Documents>,
    statistics: MemoryModel<Statistics>,
}

/// The content of the read models at the end.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Keys and rows, the richest first.
    pub(crate) richest: Vec<(String, Row)>,
    pub(crate) statistics: Statistics,
    /// The differences between the read models and the ledger.
    pub(crate) differences: Vec<String>,
}

impl ReadModels {
    /// Starts the read models; they continue where they were left.
    pub(crate) async fn start(bank: &Bank) -> Result<Self, Failure> {
        // The bank's clock leaps, and consumers need real time.
        let kernel = bank.app.kernel().clone().with_clock(Arc::new(SystemClock));
        let consumers = Consumers::new(kernel.clone());
        let list = move |_: &_| Documents::new(&kernel);
        let list = consumers.maintain(AccountList, list, ConsumerOptions::new()).await?;
        let statistics = Statistics::start(&consumers).await?;
        Ok(Self { consumers, list, statistics })
    }

    /// Stops the read models after their current batches.
    pub(crate) async fn close(&self) {
        self.consumers.close().await;
    }

    /// Waits until the read models include all events of the ledger, and compares them.
    pub(crate) async fn look(&self, work: &Work, ledger: &Ledger) -> Result<Seen, Failure> {
        let progress = Progress::start(work.notes, "catching up", "event", ledger.through.value());
        let reset = async || {
            self.list.reset().await?;
            Ok(())
        };
        let wait = async |through| self.list.wait_for(through, LOOK).await;
        come_to(work, ledger.through, &progress, wait, reset).await?;
        progress.finish();
        let statistics = self.statistics(work, ledger.through).await?;
        let (richest, mut differences) = self.compare_list(work, ledger).await?;
        let is_later = statistics.through > ledger.through.value();
        // Erased events stay in the totals, and another process may still write. Then the
        // statistics can't be compared.
        let is_comparable = ledger.is_whole() && !is_later;
        if is_comparable
            && (Statistics { through: 0, ..statistics.clone() }) != Statistics::of(ledger)
        {
            differences.push("the statistics".into());
        }
        Ok(Seen { richest, statistics, differences })
    }

    /// The totals at this position or a later one.
    async fn statistics(&self, work: &Work, through: Position) -> Result<Statistics, Failure> {
        let model = Mutex::new(self.statistics.clone());
        let now = || model.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let wait = async |through| now().wait_for(through, LOOK).await;
        let reset = async || {
            let rewound = self.consumers.rewind(now().name(), Position::ZERO).await;
            rewound.map_err(|error| Failure::internal(error.to_string()))?;
            let anew = Statistics::start(&self.consumers).await?;
            *model.lock().unwrap_or_else(PoisonError::into_inner) = anew;
            Ok(())
        };
        come_to(work, through, &Progress::Silent, wait, reset).await?;
        let model = now();
        let read = model.read().await;
        Ok(read.map_err(|error| Failure::internal(error.to_string()))?.clone())
    }

    /// The richest accounts, and the differences between the list and the ledger. The list is read
    /// by its index, so that the comparison includes the index.
    async fn compare_list(
        &self,
        work: &Work,
        ledger: &Ledger,
    ) -> Result<(Vec<(String, Row)>, Vec<String>), Failure> {
        let rows = self.list.read_model::<Row>();
        let by_balance = ModelQuery::index("balance", IndexRange::all());
        let by_balance = by_balance.backward().with_documents_max(PAGE);
        let mut richest = Vec::new();
        let mut differences = Vec::new();
        let mut moved = Vec::new();
        let mut found = 0;
        let mut before = i128::MAX;
        let mut next = Some(by_balance.clone());
        while let Some(query) = next {
            work.check_interrupt()?;
            let page = rows.list(query).await?;
            for (key, row) in page.documents {
                let holding = ledger.accounts.get(&key);
                found += usize::from(holding.is_some());
                let is_so = holding.is_none_or(|holding| {
                    row.version > holding.version.value()
                        || (row.version, row.cents, &row.owner)
                            == (holding.version.value(), holding.balance_cents, &holding.owner)
                });
                if !is_so {
                    differences.push(format!("account-{key}"));
                } else if row.cents > before || (holding.is_none() && ledger.is_whole()) {
                    moved.push(format!("the place of account-{key}"));
                }
                before = row.cents;
                if richest.len() < RICHEST_MAX {
                    richest.push((key, row));
                }
            }
            next = page.next.map(|then| by_balance.clone().then(then));
        }
        if found != ledger.accounts.len() {
            moved.push(format!("the number of accounts, {found} in the list"));
        }
        // While other processes write, new accounts come, and rows move from page to page.
        let last = ReadQuery::log().backward().with_events_max(1);
        let head = work.bank.app.kernel().events().read(last).await?.head;
        if head == ledger.through {
            differences.append(&mut moved);
        }
        Ok((richest, differences))
    }
}

/// Waits for a read model until it is there or an interrupt comes.
async fn come_to(
    work: &Work,
    position: Position,
    progress: &Progress,
    wait: impl AsyncFn(Position) -> Result<(), WaitError>,
    reset: impl AsyncFn() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut done = 0;
    let mut is_reset = false;
    loop {
        match wait(position).await {
            Ok(()) => return Ok(()),
            Err(WaitError::Behind { reached, .. }) => {
                progress.add(reached.value().saturating_sub(done));
                done = done.max(reached.value());
            }
            // The log was restored, copied or renewed, so the totals are of another log.
            Err(WaitError::Stopped { reason: StopReason::Diverged(_), .. }) if !is_reset => {
                is_reset = true;
                reset().await?;
            }
            Err(error) => return Err(Failure::of(Exit::Internal, &error)),
        }
        work.check_interrupt()?;
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Store(error) => error.into(),
            other => Self::of(Exit::Internal, &other),
        }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Store(error) => error.into(),
            QueryError::Replaced(_) => Self::of(Exit::Unavailable, &error),
            other => Self::of(Exit::Internal, &other),
        }
    }
}
