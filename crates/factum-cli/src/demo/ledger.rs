//! The bank's ledger, folded from the log independently of the repository. It takes the log page by
//! page, and gives the state of each account and the faults that it found.

use std::collections::{BTreeMap, HashMap, HashSet};

use factum::{
    Position, RecordedEvent,
    event::{DecodeError, StreamVersion, Timestamp, decode_event},
    read::{ErasedRange, Page},
};
use factum_testing::bank::AccountEvent;

/// The state of one account after its events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) owner: String,
    /// The balance. It is signed, so that a forbidden overdraft shows.
    pub(crate) balance_cents: i128,
    pub(crate) version: StreamVersion,
    pub(crate) events: u64,
}

/// The accounts and totals of the log up to a position.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) accounts: BTreeMap<String, Holding>,
    pub(crate) events: u64,
    pub(crate) event_bytes: u64,
    pub(crate) last_at: Timestamp,
    /// The last position of the log that was read, erased positions included.
    pub(crate) through: Position,
    pub(crate) paid_in_cents: i128,
    pub(crate) paid_out_cents: i128,
    pub(crate) transfers: u64,
    pub(crate) faults: Faults,
    /// The number of positions whose events were truncated or deleted.
    erased: u64,
    streams: HashMap<String, StreamVersion>,
    emails: HashSet<String>,
    sent: Option<Sent>,
}

/// The number of faults of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Holes in the positions.
    pub(crate) gaps: u64,
    /// Versions that don't follow the version before.
    pub(crate) versions: u64,
    /// Times that are earlier than that of the event before.
    pub(crate) times: u64,
    /// Halves of a transfer without the other half next to it.
    pub(crate) half_transfers: u64,
    /// Balances below zero.
    pub(crate) overdrafts: u64,
    /// E-mail addresses that a second account got.
    pub(crate) shared_emails: u64,
}

/// The sender's half of a transfer. The receiver's half must be the next event.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    from: String,
    to: String,
    cents: u64,
    at: Timestamp,
    position: Position,
}

impl Ledger {
    /// Folds the next page of a forward read of the whole log.
    ///
    /// # Errors
    /// An account's event can't be decoded.
    pub(crate) fn page(&mut self, page: &Page) -> Result<(), DecodeError> {
        let mut erased = page.erased.iter().peekable();
        for event in &page.events {
            while let Some(range) = erased.next_if(|range| range.first < event.position()) {
                self.erased(*range);
            }
            self.step(event.position(), event.position());
            self.event(event)?;
        }
        erased.for_each(|range| self.erased(*range));
        if page.scanned_through > self.through {
            self.faults.gaps += 1;
            self.through = page.scanned_through;
        }
        Ok(())
    }

    /// Ends the ledger: the log has no event left that could complete a transfer.
    pub(crate) fn finish(&mut self) {
        if self.sent.take().is_some() {
            self.faults.half_transfers += 1;
        }
    }

    /// The sum of all balances.
    pub(crate) fn total_cents(&self) -> i128 {
        self.accounts.values().map(|account| account.balance_cents).sum()
    }

    /// True if no event of the log is erased, so that the totals can be counted again.
    pub(crate) fn is_whole(&self) -> bool {
        self.erased == 0
    }

    fn erased(&mut self, range: ErasedRange) {
        self.step(range.first, range.last);
        self.erased += range.last.value() + 1 - range.first.value();
    }

    fn step(&mut self, first: Position, last: Position) {
        if first != self.through.next() {
            self.faults.gaps += 1;
        }
        self.through = last.max(self.through);
    }

    fn event(&mut self, event: &RecordedEvent) -> Result<(), DecodeError> {
        self.events += 1;
        self.event_bytes += event.size() as u64;
        if event.recorded_at() < self.last_at {
            self.faults.times += 1;
        }
        self.last_at = event.recorded_at().max(self.last_at);
        self.version(event);
        if event.stream().category() != "account" {
            return Ok(());
        }
        let mut folded = Vec::new();
        decode_event(event, &mut |event| folded.push(event))?;
        folded.into_iter().for_each(|of_account| self.fold(event, of_account));
        Ok(())
    }

    fn version(&mut self, event: &RecordedEvent) {
        let stream = event.stream().as_str();
        let expected = self.streams.get(stream).copied().unwrap_or_default().next();
        // The skipped versions may be erased, but not more of them than the log has erased
        // positions.
        let skipped = event.version().value().checked_sub(expected.value());
        if skipped.is_none_or(|skipped| skipped > self.erased) {
            self.faults.versions += 1;
        }
        match self.streams.get_mut(stream) {
            Some(version) => *version = event.version(),
            None => drop(self.streams.insert(stream.to_owned(), event.version())),
        }
    }

    fn fold(&mut self, recorded: &RecordedEvent, event: AccountEvent) {
        let key = recorded.stream().key();
        let cents = match event {
            AccountEvent::Opened { owner, email } => {
                self.opened(key, owner, email);
                0
            }
            AccountEvent::Deposited { cents } => {
                self.paid_in_cents += i128::from(cents);
                i128::from(cents)
            }
            AccountEvent::Withdrawn { cents } => {
                self.paid_out_cents += i128::from(cents);
                -i128::from(cents)
            }
            AccountEvent::Sent { to, cents } => {
                self.sent(recorded, to, cents);
                -i128::from(cents)
            }
            AccountEvent::Received { from, cents } => {
                self.received(recorded, &from, cents);
                i128::from(cents)
            }
            AccountEvent::Summarised { owner, balance_cents, .. } => {
                self.summarised(key, owner, i128::from(balance_cents))
            }
        };
        let account = self.accounts.entry(key.to_owned()).or_default();
        account.balance_cents += cents;
        account.version = recorded.version();
        account.events += 1;
        if account.balance_cents < 0 {
            self.faults.overdrafts += 1;
        }
    }

    fn opened(&mut self, key: &str, owner: String, email: String) {
        if !self.emails.insert(email) {
            self.faults.shared_emails += 1;
        }
        self.accounts.entry(key.to_owned()).or_default().owner = owner;
    }

    /// Folds a summary and returns the change of the balance. After erased history a summary brings
    /// the balance in; after history that is still there it changes nothing.
    fn summarised(&mut self, key: &str, owner: String, balance_cents: i128) -> i128 {
        let account = self.accounts.entry(key.to_owned()).or_default();
        account.owner = owner;
        let missing = balance_cents - account.balance_cents;
        if account.events == 0 {
            self.paid_in_cents += missing;
        }
        missing
    }

    fn sent(&mut self, event: &RecordedEvent, to: String, cents: u64) {
        let from = event.stream().key().to_owned();
        let sent = Sent { from, to, cents, at: event.recorded_at(), position: event.position() };
        if self.sent.replace(sent).is_some() {
            self.faults.half_transfers += 1;
        }
    }

    fn received(&mut self, event: &RecordedEvent, from: &str, cents: u64) {
        let expected = Sent {
            from: from.to_owned(),
            to: event.stream().key().to_owned(),
            cents,
            at: event.recorded_at(),
            position: event.position().previous(),
        };
        match self.sent.take() {
            Some(sent) if sent == expected => self.transfers += 1,
            Some(_) => self.faults.half_transfers += 2,
            None => self.faults.half_transfers += 1,
        }
    }
}
