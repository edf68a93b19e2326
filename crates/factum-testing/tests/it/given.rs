//! Given, when, then: the bank's rules, and the texts of failing tests.

use std::panic::{AssertUnwindSafe, catch_unwind};

use factum_kernel::{
    Aggregate, CodecError, Content, Context, Decision, DecodeError, EncodedEvent, Event, EventName,
    EventType, InvalidTag, Matching, TagWriter,
};
use factum_testing::{
    Given,
    bank::{Account, AccountCommand as Command, AccountEvent as Happened, AccountRejection},
    given,
};

fn opened() -> Happened {
    Happened::Opened { owner: "Ada".into(), email: "ada@example.org".into() }
}

fn with_balance(cents: u64) -> Given<Account> {
    given([opened(), Happened::Deposited { cents }])
}

/// The text of a failing test.
fn report(failing: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(failing)).expect_err("it should fail");
    *panic.downcast::<String>().unwrap()
}

#[test]
fn an_account_is_opened_once_and_its_address_is_guarded() {
    let open = Command::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    given::<Account>([])
        .when(open.clone())
        .then([opened()])
        .guarded(Matching::hashed_tag("email", "ada@example.org"), AccountRejection::EmailTaken)
        .state(|account| assert_eq!((&*account.owner, account.balance_cents), ("Ada", 0)))
        .when(open)
        .rejected(AccountRejection::AlreadyOpen);
}

#[test]
fn what_is_not_open_takes_nothing() {
    for command in [Command::Deposit { cents: 1 }, Command::Withdraw { cents: 1 }] {
        given::<Account>([]).when(command).rejected(AccountRejection::NotOpen);
    }
}

#[test]
fn money_goes_in_and_out_but_never_below_zero() {
    with_balance(500)
        .when(Command::Withdraw { cents: 500 })
        .then([Happened::Withdrawn { cents: 500 }])
        .unguarded()
        .when(Command::Withdraw { cents: 1 })
        .rejected(AccountRejection::InsufficientFunds { balance_cents: 0 });
    with_balance(500)
        .when(Command::Send { to: "bob".into(), cents: 501 })
        .rejected(AccountRejection::InsufficientFunds { balance_cents: 500 });
    with_balance(500)
        .when(Command::Receive { from: "bob".into(), cents: 7 })
        .then([Happened::Received { from: "bob".into(), cents: 7 }])
        .state(|account| assert_eq!(account.balance_cents, 507));
}

#[test]
fn nothing_and_too_much_are_no_amounts() {
    for cents in [0, u64::MAX] {
        with_balance(500)
            .when(Command::Deposit { cents })
            .rejected(AccountRejection::InvalidAmount { cents });
    }
    with_balance(5)
        .when(Command::Withdraw { cents: 0 })
        .rejected(AccountRejection::InvalidAmount { cents: 0 });
}

#[test]
fn a_summary_stands_for_all_before_it() {
    with_balance(500)
        .when(Command::Deposit { cents: 1 })
        .then([Happened::Deposited { cents: 1 }])
        .state(|account| {
            let summary = account.summary().unwrap();
            assert!(summary.is_summary());
            given::<Account>([summary])
                .when(Command::Withdraw { cents: 501 })
                .then([Happened::Withdrawn { cents: 501 }])
                .state(|rest| assert_eq!((&*rest.owner, rest.balance_cents), ("Ada", 0)));
        });
}

#[test]
fn other_events_are_reported_line_by_line() {
    let said = report(|| {
        with_balance(500)
            .when(Command::Withdraw { cents: 5 })
            .then([Happened::Withdrawn { cents: 6 }]);
    });
    assert!(said.contains("led to other events"), "{said}");
    assert!(said.contains("\n-         cents: 6,\n+         cents: 5,\n"), "{said}");
    assert!(said.contains("\n      Withdrawn {\n"), "unchanged lines stay: {said}");
}

#[test]
fn an_unexpected_rejection_and_a_missing_one_are_reported() {
    let said = report(|| {
        with_balance(5)
            .when(Command::Withdraw { cents: 6 })
            .then([Happened::Withdrawn { cents: 6 }]);
    });
    assert!(said.contains("the command was rejected"), "{said}");
    assert!(said.contains("insufficient funds: balance_cents=5"), "{said}");

    let said = report(|| {
        with_balance(5).when(Command::Withdraw { cents: 5 }).rejected(AccountRejection::NotOpen);
    });
    assert!(said.contains("should be rejected") && said.contains("- rejected: NotOpen"), "{said}");

    let said = report(|| {
        with_balance(5).when(Command::Withdraw { cents: 6 }).rejected(AccountRejection::NotOpen);
    });
    assert!(said.contains("rejected otherwise"), "{said}");
    assert!(said.contains("+ rejected: InsufficientFunds"), "{said}");

    let said = report(|| {
        with_balance(5).when(Command::Withdraw { cents: 5 }).then_nothing();
    });
    assert!(said.contains("led to other events"), "{said}");
}

#[test]
fn missing_and_surplus_guards_are_reported() {
    let open = || {
        let command = Command::Open { owner: "Ada".into(), email: "ada@example.org".into() };
        given::<Account>([]).when(command).then([opened()])
    };
    let said = report(|| {
        open().guarded(Matching::tag("email", "ada@example.org"), AccountRejection::EmailTaken);
    });
    assert!(said.contains("no such guard") && said.contains("Hashed"), "{said}");
    assert!(report(|| drop(open().unguarded())).contains("has guards"));
}

/// An event that loses its number when it is stored.
#[derive(Debug, PartialEq)]
struct Forgetful(u32);

impl Event for Forgetful {
    fn types() -> Vec<EventType> {
        vec![Self(0).event_type()]
    }

    fn event_type(&self) -> EventType {
        let name = EventName::from_static("forgetful");
        EventType { name, schema_version: 1, rust_type: "Forgetful" }
    }

    fn owns(name: &str) -> bool {
        name == "forgetful"
    }

    fn is_summary(&self) -> bool {
        false
    }

    fn tags(&self, _: &mut TagWriter<'_>) -> Result<(), InvalidTag> {
        Ok(())
    }

    fn fields<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }

    fn encode(&self, _: &mut bytes::BytesMut) -> Result<Content, CodecError> {
        Ok(Content::Cbor)
    }

    fn decode(_: EncodedEvent<'_>, sink: &mut dyn FnMut(Self)) -> Result<(), DecodeError> {
        sink(Self(0));
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Counter;

impl Aggregate for Counter {
    const CATEGORY: &'static str = "counter";
    type Command = u32;
    type Event = Forgetful;
    type Rejection = AccountRejection;

    fn decide(&self, command: &u32, cx: &Context<'_>) -> Result<Decision<Self>, AccountRejection> {
        assert_eq!((cx.key, cx.now.as_micros()), ("one", 5));
        Ok([Forgetful(*command)].into())
    }

    fn evolve(&mut self, _: &Forgetful) {}
}

#[test]
fn an_event_that_changes_in_its_codec_is_reported() {
    let said = report(|| drop(given::<Counter>([Forgetful(7)])));
    assert!(said.contains("changed on its way through its codec"), "{said}");
    assert!(said.contains("-         7,\n+         0,"), "{said}");
    given::<Counter>([Forgetful(0)])
        .without_encoding()
        .and([Forgetful(7)])
        .with_key("one")
        .at(factum_kernel::Timestamp::from_micros(5))
        .when(7_u32)
        .then([Forgetful(7)]);
}
