//! The audit: folds the whole log again, compares that with what the repository loads, with the
//! accounts that run and with the read models, and takes a closer look at one of them.

use std::{collections::VecDeque, time::Duration};

use factum::{At, PAGE_EVENTS_MAX, ReadQuery, StreamVersion, Timestamp};
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

/// So much of an account's history is shown.
const ENTRIES_MAX: usize = 8;
/// How long before the end of the log the account is looked at again.
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// What the log says, and whether that is as it must be.
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
    /// The last of its entries, oldest first.
    pub(crate) entries: VecDeque<Entry>,
    /// A week before the log ends.
    pub(crate) week_ago: Timestamp,
    /// What was on it then; `None` if it was not open.
    pub(crate) cents_week_ago: Option<u64>,
}

/// Something that happened to an account.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) at: Timestamp,
    pub(crate) what: String,
    pub(crate) cents: i128,
    pub(crate) balance_cents: i128,
}

/// Folds the log from its first event to its last, and checks it.
pub(crate) async fn run(work: &Work, models: &ReadModels) -> Result<Audited, Failure> {
    let store = work.bank.app.kernel().events();
    let mut ledger = Ledger::default();
    let mut progress: Option<Progress> = None;
    // Page by page, because a page also says which positions are gone for a reason.
    let mut next = Some(ReadQuery::log().with_events_max(PAGE_EVENTS_MAX));
    while let Some(query) = next {
        work.check_interrupt()?;
        let page = store.read(query.clone()).await?;
        ledger.page(&page).map_err(|e| Failure::from(factum::LoadError::from(e)))?;
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

/// The accounts that are otherwise than the ledger says, as the repository loads them or as they
/// run.
async fn disagreeing(work: &Work, ledger: &Ledger) -> Result<Vec<String>, Failure> {
    let accounts = &work.bank.accounts;
    let mut disagreeing = Vec::new();
    for (key, holding) in &ledger.accounts {
        work.check_interrupt()?;
        let mut states = vec![accounts.load(key).await?];
        // One that does not run would only be loaded once more.
        if accounts.entity(key)?.is_some() {
            states.push(accounts.state(key).await?);
        }
        for mut found in states {
            if found.version > holding.version {
                // Another process goes on writing; what the ledger saw is a moment of the past.
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

/// The life of the busiest account; `None` where there is no account.
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

/// What an event means to the account's owner, and by how much it changed the balance.
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
