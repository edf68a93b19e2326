//! What the log says, folded independently of the repository: pages in, one page after another,
//! and out comes what each account holds and what is not as it must be.

use std::collections::{BTreeMap, HashMap, HashSet};

use factum::{
    DecodeError, ErasedRange, Page, Position, RecordedEvent, StreamVersion, Timestamp, decode_event,
};
use factum_testing::bank::AccountEvent;

/// One account as its events make it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) owner: String,
    /// Signed, so that an overdraft that must not be can be seen.
    pub(crate) balance_cents: i128,
    pub(crate) version: StreamVersion,
    pub(crate) events: u64,
}

/// What the log says up to a position.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) accounts: BTreeMap<String, Holding>,
    pub(crate) events: u64,
    pub(crate) event_bytes: u64,
    pub(crate) last_at: Timestamp,
    /// The last position that was seen, erased ones included.
    pub(crate) through: Position,
    pub(crate) paid_in_cents: i128,
    pub(crate) paid_out_cents: i128,
    pub(crate) transfers: u64,
    pub(crate) faults: Faults,
    /// Positions that are gone by truncation or deletion.
    erased: u64,
    streams: HashMap<String, StreamVersion>,
    emails: HashSet<String>,
    sent: Option<Sent>,
}

/// How often the log was not as it must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Holes in the positions.
    pub(crate) gaps: u64,
    /// Versions that don't follow the one before.
    pub(crate) versions: u64,
    /// Times before that of the event before.
    pub(crate) times: u64,
    /// Halves of a transfer without the other beside it.
    pub(crate) half_transfers: u64,
    /// Accounts that held less than nothing.
    pub(crate) overdrafts: u64,
    /// Addresses that a second account got.
    pub(crate) shared_emails: u64,
}

/// The near half of a transfer, whose far half must be the next event.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    from: String,
    to: String,
    cents: u64,
    at: Timestamp,
    position: Position,
}

impl Ledger {
    /// Takes in the next page of a forward read of the whole log.
    ///
    /// # Errors
    /// An event of an account that can't be read.
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

    /// The log is at its end: nothing can complete what is not complete.
    pub(crate) fn finish(&mut self) {
        if self.sent.take().is_some() {
            self.faults.half_transfers += 1;
        }
    }

    /// What all accounts hold together.
    pub(crate) fn total_cents(&self) -> i128 {
        self.accounts.values().map(|account| account.balance_cents).sum()
    }

    /// Whether nothing of the log is gone, so that what was counted once can be counted again.
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
        // What was skipped may have been erased, but no more than was erased at all.
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

    /// Behind history that is gone a summary brings its balance in; behind history that is there
    /// it changes nothing. Gives the difference.
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
