//! The plan of the month from a seed: the wishes and their times. The same brief gives the same
//! month.

use std::{sync::Arc, time::Duration};

use factum::event::Timestamp;

use crate::{
    demo::customer::{Customer, email},
    random::Random,
};

/// The most openings in a month: the bank opens in the morning and in the afternoon, for 30 days.
const OPENINGS_MAX: u64 = 60;
/// The fewest commands in one opening, so that writers race even on a quiet day.
const COMMANDS_MIN: u64 = 40;
/// The time within which all commands of one opening are given. It is well below the retry window
/// of a store, so that the leaps of the clock between openings break no promise about repeated
/// appends.
const OPENING_LASTS: Duration = Duration::from_secs(240);
/// The number of favourite accounts.
const HOT_MAX: usize = 5;

/// A customer's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Open an account.
    Open { key: Arc<str>, owner: String, email: String },
    /// Pay money in.
    Deposit { key: Arc<str>, cents: u64 },
    /// Pay money out.
    Withdraw { key: Arc<str>, cents: u64 },
    /// Pay another customer.
    Transfer { from: Arc<str>, to: Arc<str>, cents: u64 },
}

/// A wish and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) at: Timestamp,
    pub(crate) wish: Wish,
}

/// The input of a plan.
#[derive(Debug, Clone)]
pub(crate) struct Brief {
    /// The seed of the command line.
    pub(crate) seed: u64,
    /// The head of the log, which separates this run from earlier ones on the same log.
    pub(crate) run: u64,
    /// The accounts that exist already.
    pub(crate) known: Vec<Arc<str>>,
    /// The first number that no customer has.
    pub(crate) next_number: u64,
    /// The number of accounts to open.
    pub(crate) accounts: u64,
    /// The number of wishes in all.
    pub(crate) commands: u64,
    /// The beginning of the month.
    pub(crate) start: Timestamp,
    /// The end of the month.
    pub(crate) end: Timestamp,
}

/// The month as a sequence of openings of the bank. The orders of one opening use only accounts
/// that were opened before it, so they can be executed concurrently.
#[derive(Debug)]
pub(crate) struct Month {
    brief: Brief,
    random: Random,
    openings: u64,
    opening: u64,
    /// The number of wishes that are left.
    commands: u64,
    accounts: u64,
}

impl Month {
    /// Plans the month of a brief.
    pub(crate) fn new(brief: Brief) -> Self {
        let openings = (brief.commands / COMMANDS_MIN).clamp(1, OPENINGS_MAX);
        let random = Random::new(brief.seed, brief.run);
        let commands = brief.commands;
        let accounts = brief.accounts.min(brief.commands);
        Self { brief, random, openings, opening: 0, commands, accounts }
    }

    /// The number of wishes at this opening. A new bank begins with its founders alone.
    fn size(&self) -> u64 {
        if self.brief.known.is_empty() && self.accounts > 0 {
            let founders = (self.accounts / 4).max(8);
            return founders.min(self.accounts);
        }
        let left = self.openings.saturating_sub(self.opening).max(1);
        self.commands.div_ceil(left)
    }

    /// The time at which this opening begins, and the time between two of its wishes.
    fn times(&self, size: u64) -> (Timestamp, Duration) {
        let Brief { start, end, .. } = self.brief;
        #[expect(clippy::disallowed_methods, reason = "both are times of the month that it plans")]
        let span = end.saturating_since(start);
        let share = |of: Duration, part: u64, all: u64| {
            let micros = of.as_micros() * u128::from(part) / u128::from(all.max(1));
            Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
        };
        // The founders' opening may be one more than planned, so the month has room for one more.
        let half_day = share(span, 1, self.openings + 1);
        let begin = start.saturating_add(share(span, self.opening, self.openings + 1));
        (begin, share(OPENING_LASTS.min(half_day), 1, size))
    }

    fn wish(&mut self, opened: &mut Vec<Arc<str>>) -> Wish {
        let is_new = self.brief.known.is_empty()
            // New customers come rather early in the month, and all of them come.
            || (self.accounts > 0 && self.random.below(self.commands) < 3 * self.accounts);
        self.commands -= 1;
        if is_new && self.accounts > 0 {
            self.accounts -= 1;
            let wish = self.open(None);
            if let Wish::Open { key, .. } = &wish {
                opened.push(key.clone());
            }
            return wish;
        }
        let key = self.account();
        match self.random.below(1_000) {
            0..450 => Wish::Deposit { key, cents: self.random.between(500, 200_000) },
            450..690 => Wish::Withdraw { key, cents: self.random.between(100, 60_000) },
            // More than any account holds.
            690..740 => Wish::Withdraw { key, cents: self.random.between(1 << 50, 1 << 51) },
            740..750 => self.open(Some(&key)),
            _ => self.transfer(key),
        }
    }

    /// A wish to open an account; with the address of the account `taken`, if one is given.
    fn open(&mut self, taken: Option<&str>) -> Wish {
        let number = self.brief.next_number;
        self.brief.next_number += 1;
        let Customer { key, owner } = Customer::invent(number, &mut self.random);
        let email = email(taken.unwrap_or(&key));
        Wish::Open { key, owner, email }
    }

    fn transfer(&mut self, from: Arc<str>) -> Wish {
        let cents = self.random.between(100, 50_000);
        // An account can't pay itself, so others are drawn. If all eight draws fail, the customer
        // pays money in.
        let others: Vec<_> = (0..8).map(|_| self.account()).filter(|to| *to != from).collect();
        match others.into_iter().next() {
            Some(to) => Wish::Transfer { from, to, cents },
            None => Wish::Deposit { key: from, cents },
        }
    }

    /// Draws an account, one time in four a favourite.
    fn account(&mut self) -> Arc<str> {
        let known = &self.brief.known;
        let hot = (known.len() / 20).clamp(1, HOT_MAX).min(known.len());
        let among = if self.random.below(4) == 0 { &known[..hot] } else { &known[..] };
        // There is no account only in an empty bank that opens none.
        self.random.pick(among).cloned().unwrap_or_else(|| "nobody".into())
    }
}

impl Iterator for Month {
    type Item = Vec<Order>;

    fn next(&mut self) -> Option<Vec<Order>> {
        if self.commands == 0 {
            return None;
        }
        let size = self.size().min(self.commands);
        let (begin, pause) = self.times(size);
        let mut opened = Vec::new();
        let mut orders = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        let mut at = begin;
        for _ in 0..size {
            at = at.saturating_add(pause);
            orders.push(Order { at, wish: self.wish(&mut opened) });
        }
        self.brief.known.append(&mut opened);
        self.opening += 1;
        Some(orders)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn brief(accounts: u64, commands: u64) -> Brief {
        let end: Timestamp = "2026-03-31T00:00:00Z".parse().unwrap();
        let start = end.saturating_sub(Duration::from_secs(30 * 86_400));
        let known = Vec::new();
        let next_number = 1;
        Brief { seed: 1, run: 0, known, next_number, accounts, commands, start, end }
    }

    fn accounts_opened(orders: &[Order]) -> Vec<Arc<str>> {
        let new = |order: &Order| match &order.wish {
            Wish::Open { key, email: address, .. } if *address == email(key) => Some(key.clone()),
            _ => None,
        };
        orders.iter().filter_map(new).collect()
    }

    #[test]
    fn the_same_brief_gives_the_same_month_and_another_run_another() {
        let month = |run| Month::new(Brief { run, ..brief(10, 300) }).collect::<Vec<_>>();
        assert_eq!(month(0), month(0));
        assert_ne!(month(0), month(1));
    }

    #[test]
    fn every_account_is_opened_once_and_used_only_afterwards() {
        for (accounts, commands) in [(1, 1), (10, 200), (100, 120), (100, 5_000), (50, 20), (1, 90)]
        {
            let mut open = HashSet::new();
            let mut count = 0;
            for orders in Month::new(brief(accounts, commands)) {
                count += orders.len() as u64;
                for order in &orders {
                    match &order.wish {
                        Wish::Open { .. } => {}
                        Wish::Deposit { key, .. } | Wish::Withdraw { key, .. } => {
                            assert!(open.contains(key), "{key}");
                        }
                        Wish::Transfer { from, to, .. } => {
                            assert!(open.contains(from) && open.contains(to) && from != to);
                        }
                    }
                }
                for key in accounts_opened(&orders) {
                    assert!(open.insert(key));
                }
            }
            assert_eq!((open.len() as u64, count), (accounts.min(commands), commands));
        }
    }

    #[test]
    fn time_goes_forward_within_the_month_and_an_opening_is_short() {
        let brief = brief(100, 5_000);
        let mut last = brief.start;
        for orders in Month::new(brief.clone()) {
            let first = orders.first().unwrap().at;
            let end = orders.last().unwrap().at;
            assert!(last <= first && end <= brief.end);
            assert!(end <= first.saturating_add(OPENING_LASTS));
            assert!(orders.iter().map(|order| order.at).is_sorted());
            last = end;
        }
        assert!(last >= brief.start.saturating_add(Duration::from_secs(28 * 86_400)), "{last}");
    }

    #[test]
    fn a_month_without_time_or_accounts_is_still_a_month() {
        let short = Brief { end: Timestamp::EPOCH, ..brief(5, 100) };
        assert!(Month::new(short.clone()).flatten().all(|order| order.at == short.start));
        assert_eq!(Month::new(brief(0, 50)).flatten().count(), 50);
        assert_eq!(Month::new(brief(0, 0)).count(), 0);
    }
}
