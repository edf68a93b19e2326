//! The rules that the bank's log must satisfy, and their checks.

use crate::{
    demo::{ledger::Ledger, read_model::Seen},
    number::{counted, grouped, money},
};

/// A rule and the result of its check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// The name in JSON.
    pub(crate) name: &'static str,
    /// The rule, for people.
    pub(crate) claim: &'static str,
    /// The result of the check.
    pub(crate) outcome: Outcome,
}

/// The result of a check, with the figures for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The rule holds.
    Holds(String),
    /// The rule does not hold.
    Fails(String),
}

impl Check {
    fn new(name: &'static str, claim: &'static str, holds: bool, figures: String) -> Self {
        let outcome = if holds { Outcome::Holds(figures) } else { Outcome::Fails(figures) };
        Self { name, claim, outcome }
    }

    /// True if the rule holds.
    pub(crate) fn holds(&self) -> bool {
        matches!(self.outcome, Outcome::Holds(_))
    }
}

/// True if no cent appeared from nowhere and none was lost.
pub(crate) fn is_conserved(ledger: &Ledger) -> bool {
    let faults = ledger.faults;
    ledger.total_cents() == ledger.paid_in_cents - ledger.paid_out_cents
        && faults.overdrafts == 0
        && faults.half_transfers == 0
}

/// All checks of a log that was folded to its end. `disagreeing` names the accounts that differ
/// from the log, as the repository loads them or as they run.
pub(crate) fn all(ledger: &Ledger, disagreeing: &[String]) -> Vec<Check> {
    let faults = ledger.faults;
    let positions = match ledger.through.value() {
        0 => "no events".to_owned(),
        last => format!("1 to {}", grouped(last)),
    };
    let transfers = counted(ledger.transfers, "transfer");
    let halves = Faults { count: faults.half_transfers, noun: "half transfer" };
    let gaps = Faults { count: faults.gaps, noun: "gap" };
    let versions = Faults { count: faults.versions, noun: "break" };
    let times = Faults { count: faults.times, noun: "step back" };
    let emails = Faults { count: faults.shared_emails, noun: "shared address" };
    vec![
        Check::new("money", "money is conserved", is_conserved(ledger), money_figures(ledger)),
        none_of(halves, "transfers", "transfers are whole", transfers),
        none_of(gaps, "positions", "positions are gapless", positions),
        none_of(versions, "versions", "versions are contiguous", "in every stream"),
        none_of(times, "times", "time never goes back", "from event to event"),
        none_of(emails, "emails", "e-mails are unique", "one account each"),
        loads(ledger, disagreeing),
    ]
}

/// The number of faults of a kind, and its name.
struct Faults {
    count: u64,
    noun: &'static str,
}

/// A check that holds if no fault was found.
fn none_of(
    faults: Faults,
    name: &'static str,
    claim: &'static str,
    figures: impl Into<String>,
) -> Check {
    match faults.count {
        0 => Check::new(name, claim, true, figures.into()),
        _ => Check::new(name, claim, false, counted(faults.count, faults.noun)),
    }
}

fn money_figures(ledger: &Ledger) -> String {
    let paid_in = money(ledger.paid_in_cents);
    let paid_out = money(ledger.paid_out_cents);
    let held = money(ledger.total_cents());
    let sum = format!("{paid_in} paid in - {paid_out} paid out = {held} held");
    match ledger.faults.overdrafts {
        0 if is_conserved(ledger) => sum,
        0 => format!("not so: {sum}"),
        count => format!("{}, {sum}", counted(count, "overdraft")),
    }
}

/// The check of the read models, which were maintained while the bank ran.
pub(crate) fn read_models(ledger: &Ledger, seen: &Seen) -> Check {
    let figures = match seen.differences.first() {
        None => {
            let accounts = counted(ledger.accounts.len() as u64, "account");
            format!("{accounts} by balance, {} in all", money(seen.statistics.held_cents))
        }
        Some(first) => {
            let differences = counted(seen.differences.len() as u64, "difference");
            format!("{differences}, {first} first")
        }
    };
    Check::new("read_models", "read models agree", seen.differences.is_empty(), figures)
}

fn loads(ledger: &Ledger, disagreeing: &[String]) -> Check {
    let figures = match disagreeing.first() {
        None => counted(ledger.accounts.len() as u64, "account"),
        Some(key) => {
            format!("{}, account-{key} first", counted(disagreeing.len() as u64, "difference"))
        }
    };
    Check::new("loads", "loading agrees", disagreeing.is_empty(), figures)
}

#[cfg(test)]
mod tests;
