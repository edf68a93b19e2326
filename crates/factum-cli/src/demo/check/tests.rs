//! Forbidden histories, each found by its own check and by no other.

use factum::{
    Metadata, Position, RecordedEvent, TagKey,
    event::{EventHeader, EventId, StreamId, StreamVersion, Timestamp, encode_event},
    read::{Lineage, Page},
    store::{IdSource, SystemIds},
};
use factum_testing::bank::AccountEvent;

use super::*;

/// A log that is made by hand. It can hold events that no store would hold.
#[derive(Default)]
struct Made {
    events: Vec<RecordedEvent>,
    position: u64,
    at: u64,
}

impl Made {
    /// A log in which two accounts were opened, with 1,000 cents on the first.
    fn begun() -> Self {
        let opened = |name: &str| AccountEvent::Opened {
            owner: name.into(),
            email: format!("{name}@example.org"),
        };
        Self::default().then("ada", 1, opened("ada")).then("bob", 1, opened("bob")).then(
            "ada",
            2,
            AccountEvent::Deposited { cents: 1_000 },
        )
    }

    fn then(mut self, key: &str, version: u64, event: AccountEvent) -> Self {
        (self.position, self.at) = (self.position + 1, self.at + 1);
        let tag_key = TagKey::new([7; 32]);
        let id = EventId::derived(Timestamp::EPOCH, &self.position.to_le_bytes());
        let new = encode_event(&event, id, &Metadata::new(), Some(&tag_key)).unwrap();
        let header = EventHeader {
            position: Position::new(self.position),
            version: StreamVersion::new(version),
            recorded_at: Timestamp::from_micros(self.at),
            id,
            schema_version: new.schema_version,
            content: new.content,
        };
        let stream = StreamId::new("account", key).unwrap();
        self.events.push(RecordedEvent::from_new(header, stream.as_ref(), &new));
        self
    }

    /// Gives the next event the time of the last one, as in a batch.
    fn at_once(mut self) -> Self {
        self.at -= 1;
        self
    }

    fn ledger(self) -> Ledger {
        let mut page = Page::empty(Lineage::new(SystemIds.uuid(Timestamp::EPOCH)));
        page.scanned_through = Position::new(self.position);
        page.events = self.events;
        let mut ledger = Ledger::default();
        ledger.page(&page).unwrap();
        ledger.finish();
        ledger
    }

    fn failing(self) -> Vec<&'static str> {
        let checks = all(&self.ledger(), &[]);
        checks.iter().filter(|check| !check.holds()).map(|check| check.name).collect()
    }
}

fn deposited(cents: u64) -> AccountEvent {
    AccountEvent::Deposited { cents }
}

fn sent(to: &str, cents: u64) -> AccountEvent {
    AccountEvent::Sent { to: to.into(), cents }
}

fn received(from: &str, cents: u64) -> AccountEvent {
    AccountEvent::Received { from: from.into(), cents }
}

#[test]
fn an_honest_history_passes() {
    let made = Made::begun().then("ada", 3, sent("bob", 400)).at_once();
    let made = made.then("bob", 2, received("ada", 400));
    let ledger = made.then("bob", 3, AccountEvent::Withdrawn { cents: 100 }).ledger();
    assert!(all(&ledger, &[]).iter().all(Check::holds), "{:?}", ledger.faults);
    assert_eq!((ledger.total_cents(), ledger.transfers, ledger.events), (900, 1, 6));
    assert_eq!(ledger.accounts["bob"].balance_cents, 300);
}

#[test]
fn money_out_of_nowhere_is_found() {
    let more_than_sent = Made::begun().then("ada", 3, sent("bob", 400)).at_once();
    let more_than_sent = more_than_sent.then("bob", 2, received("ada", 500));
    assert_eq!(more_than_sent.failing(), ["money", "transfers"]);
    let out_of_nothing = Made::begun().then("bob", 2, AccountEvent::Withdrawn { cents: 1 });
    assert_eq!(out_of_nothing.failing(), ["money"]);
}

#[test]
fn half_a_transfer_is_found_on_either_side() {
    let near = Made::begun().then("ada", 3, sent("bob", 400));
    assert_eq!(near.failing(), ["money", "transfers"]);
    let far = Made::begun().then("bob", 2, received("ada", 400));
    assert_eq!(far.failing(), ["money", "transfers"]);
}

#[test]
fn a_transfer_in_two_appends_is_no_transfer() {
    let apart = Made::begun().then("ada", 3, sent("bob", 400));
    let apart = apart.then("bob", 2, deposited(1)).then("bob", 3, received("ada", 400));
    assert_eq!(apart.failing(), ["money", "transfers"]);
    let later = Made::begun().then("ada", 3, sent("bob", 400));
    let later = later.then("bob", 2, received("ada", 400));
    assert_eq!(later.failing(), ["money", "transfers"], "not at one time");
}

#[test]
fn a_hole_is_found_at_the_start_in_between_and_at_the_end() {
    let hole = |at: usize| {
        let mut made = Made::begun().then("bob", 2, deposited(5));
        made.events.remove(at);
        made.ledger().faults.gaps
    };
    assert_eq!([hole(0), hole(1), hole(2), hole(3)], [1; 4]);
    let mut all_gone = Made::begun();
    all_gone.events.clear();
    assert_eq!(all_gone.failing(), ["positions"]);
}

#[test]
fn what_was_erased_is_no_hole() {
    let mut page = Page::empty(Lineage::new(SystemIds.uuid(Timestamp::EPOCH)));
    page.events = Made::begun().then("bob", 5, deposited(5)).events.split_off(3);
    page.erased =
        vec![factum::read::ErasedRange { first: Position::new(1), last: Position::new(3) }];
    page.scanned_through = Position::new(4);
    let mut ledger = Ledger::default();
    ledger.page(&page).unwrap();
    assert_eq!((ledger.faults.gaps, ledger.faults.versions), (0, 1), "only three were erased");
    page.events = Made::begun().then("bob", 4, deposited(5)).events.split_off(3);
    let mut ledger = Ledger::default();
    ledger.page(&page).unwrap();
    assert_eq!(ledger.faults, Default::default());
}

#[test]
fn a_version_too_far_or_twice_is_found() {
    assert_eq!(Made::begun().then("ada", 4, deposited(1)).failing(), ["versions"]);
    assert_eq!(Made::begun().then("ada", 2, deposited(1)).failing(), ["versions"]);
}

#[test]
fn time_that_goes_back_and_an_address_for_two_are_found() {
    let back = Made::begun().at_once().at_once().then("ada", 3, deposited(1));
    assert_eq!(back.failing(), ["times"]);
    let email = "ada@example.org".into();
    let shared = AccountEvent::Opened { owner: "eve".into(), email };
    assert_eq!(Made::begun().then("eve", 1, shared).failing(), ["emails"]);
}

#[test]
fn an_account_that_loads_otherwise_is_named() {
    let checks = all(&Made::begun().ledger(), &["ada".into()]);
    let Some(Outcome::Fails(figures)) = checks.last().map(|check| check.outcome.clone()) else {
        panic!("loading does not agree: {checks:?}");
    };
    assert_eq!(figures, "1 difference, account-ada first");
}
