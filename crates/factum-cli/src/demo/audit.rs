//! The audit: folds the whole log again; compares the result with the accounts that the repository
//! loads, with the running accounts, and with the read models; and shows the life of one account.

use std::{collections::VecDeque, time::Duration};

use factum::{
    At, ReadQuery,
    event::{StreamVersion, Timestamp},
    read::PAGE_EVENTS_MAX,
};
use factum_testing::bank::AccountEvent;

use crate::{
    demo::{
        Work,
        bank::Bank,
        check::{self, Check},
        ledger::{Holding, Ledger},
        read_model::{ReadModels, Seen},
    },
    exit::Failure,
    progress::Progress,
};

/// The most entries of an account's history that are shown.
const ENTRIES_MAX: usize = 8;
/// The time before the end of the log at which the account's balance is shown too.
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// The result of the audit.
#[derive(Debug)]
pub(crate) struct Audited {
    pub(crate) ledger: Ledger,
    pub(crate) checks: Vec<Check>,
    pub(crate) seen: Seen,
}

/// The life of one account.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) key: String,
    pub(crate) holding: Holding,
    /// The last entries, oldest first.
    pub(crate) entries: VecDeque<Entry>,
    /// The time a week before the last event of the log.
    pub(crate) week_ago: Timestamp,
    /// The balance at that time; `None` if the account was not open.
    pub(crate) cents_week_ago: Option<u64>,
}

/// An event in the life of an account.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) at: Timestamp,
    pub(crate) what: String,
    pub(crate) cents: i128,
    pub(crate) balance_cents: i128,
}

/// Folds the log from its first event to its last, and runs all checks.
pub(crate) async fn run(work: &Work, models: &ReadModels) -> Result<Audited, Failure> {
    let store = work.bank.app.kernel().events();
    let mut ledger = Ledger::default();
    let mut progress: Option<Progress> = None;
    // Read page by page, because a page also names the erased positions.
    let mut next = Some(ReadQuery::log().with_events_max(PAGE_EVENTS_MAX));
    while let Some(query) = next {
        work.check_interrupt()?;
        let page = store.read(query.clone()).await?;
        ledger.page(&page).map_err(|e| Failure::from(factum::aggregate::LoadError::from(e)))?;
        let begin = || Progress::start(work.notes, "checking", "event", page.head.value());
        progress.get_or_insert_with(begin).add(page.events.len() as u64);
        next = query.next(&page);
    }
    ledger.finish();
    let disagreeing = disagreeing(work, &ledger).await?;
    if let Some(progress) = progress {
        progress.finish();
    }
    let seen = models.look(work, &ledger).await?;
    let mut checks = check::all(&ledger, &disagreeing);
    checks.push(check::read_models(&ledger, &seen));
    Ok(Audited { checks, ledger, seen })
}

/// The accounts that differ from the ledger, as the repository loads them or as they run.
async fn disagreeing(work: &Work, ledger: &Ledger) -> Result<Vec<String>, Failure> {
    let accounts = &work.bank.accounts;
    let mut disagreeing = Vec::new();
    for (key, holding) in &ledger.accounts {
        work.check_interrupt()?;
        let mut states = vec![accounts.load(key).await?];
        // An account that does not run would only be loaded a second time.
        if accounts.entity(key)?.is_some() {
            states.push(accounts.state(key).await?);
        }
        for mut found in states {
            if found.version > holding.version {
                // Another process still writes. The ledger shows an earlier version.
                found = accounts.load_at(key, At::Version(holding.version)).await?;
            }
            let cents = i128::from(found.state.balance_cents);
            let said = (holding.version, holding.balance_cents, &holding.owner);
            if (found.version, cents, &found.state.owner) != said {
                disagreeing.push(key.clone());
                break;
            }
        }
    }
    Ok(disagreeing)
}

/// The life of the busiest account; `None` if there is no account.
pub(crate) async fn story(bank: &Bank, ledger: &Ledger) -> Result<Option<Story>, Failure> {
    let busiest = ledger.accounts.iter().max_by_key(|(_, holding)| holding.events);
    let Some((key, holding)) = busiest else { return Ok(None) };
    let week_ago = ledger.last_at.saturating_sub(WEEK);
    let then = bank.accounts.load_at(key, At::Time(week_ago)).await?;
    let was_open = then.version > StreamVersion::ZERO;
    Ok(Some(Story {
        key: key.clone(),
        holding: holding.clone(),
        entries: entries(bank, key).await?,
        week_ago,
        cents_week_ago: was_open.then_some(then.state.balance_cents),
    }))
}

async fn entries(bank: &Bank, key: &str) -> Result<VecDeque<Entry>, Failure> {
    let mut entries = VecDeque::with_capacity(ENTRIES_MAX + 1);
    let mut balance_cents = 0;
    let mut history = bank.accounts.history(key)?;
    while let Some(found) = history.next().await {
        let found = found?;
        for event in found.events {
            let (what, cents) = describe(event, balance_cents);
            balance_cents += cents;
            entries.push_back(Entry {
                at: found.recorded.recorded_at(),
                what,
                cents,
                balance_cents,
            });
            if entries.len() > ENTRIES_MAX {
                entries.pop_front();
            }
        }
    }
    Ok(entries)
}

/// The event in words for the account's owner, and its change of the balance.
fn describe(event: AccountEvent, balance_cents: i128) -> (String, i128) {
    match event {
        AccountEvent::Opened { .. } => ("opened".into(), 0),
        AccountEvent::Deposited { cents } => ("deposited".into(), i128::from(cents)),
        AccountEvent::Withdrawn { cents } => ("withdrawn".into(), -i128::from(cents)),
        AccountEvent::Sent { to, cents } => (format!("sent to {to}"), -i128::from(cents)),
        AccountEvent::Received { from, cents } => {
            (format!("received from {from}"), i128::from(cents))
        }
        AccountEvent::Summarised { balance_cents: is, .. } => {
            ("summarised".into(), i128::from(is) - balance_cents)
        }
    }
}
