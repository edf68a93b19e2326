//! Old events and their upcasts to the present schemas.

use factum_kernel::{DecodeReason, Event, OldEvent, Upcast, Value};

use crate::{decode, stored};

#[derive(Debug, PartialEq, factum_macros::Event)]
#[event(
    crate = factum_kernel,
    upcast(name = "account.renamed-away", from = 1, with = to_deposit),
    upcast(name = "account.renamed-away", from = 3, with = to_deposit)
)]
#[event(upcast(name = "ledger.transferred", from = 1, with = split))]
enum AccountEvent {
    #[event(schema_version = 3)]
    #[event(upcast(from = 1, with = add_currency), upcast(from = 2, with = steps::cents_to_amount))]
    Deposited {
        amount: u64,
        currency: String,
    },
    #[event(schema_version = 4, upcast(from = 2, with = drop), upcast(from = 3, with = refuse))]
    Noted,
    #[event(schema_version = 2, upcast(from = 1, with = stay))]
    Stuck,
    #[event(schema_version = 2, upcast(from = 1, with = wrap))]
    Labelled(String),
    Withdrawn {
        amount: u64,
    },
}

/// Schema 1 had no currency; all were euros.
fn add_currency(mut event: OldEvent) -> Result<Upcast, String> {
    event.set("currency", "EUR");
    Ok(event.next())
}

mod steps {
    use factum_kernel::{OldEvent, Upcast};

    /// Schema 2 called the amount `cents`.
    pub(super) fn cents_to_amount(mut event: OldEvent) -> Result<Upcast, String> {
        event.rename("cents", "amount");
        Ok(event.next())
    }
}

/// The removed name was a deposit of schema 2.
fn to_deposit(mut event: OldEvent) -> Result<Upcast, String> {
    event.name = "account.deposited".into();
    event.schema_version = 1;
    Ok(Upcast::One(event))
}

/// A transfer was one event, and now is two.
fn split(event: OldEvent) -> Result<Upcast, String> {
    let amount = event.field("amount").cloned().ok_or("no amount")?;
    let one = |name, amount| OldEvent::new(name, 1, [("amount", amount)]);
    let mut deposit = OldEvent::new("account.deposited", 3, [("amount", amount.clone())]);
    deposit.set("currency", "EUR");
    Ok(Upcast::Many(vec![one("account.withdrawn", amount), deposit]))
}

fn drop(_: OldEvent) -> Result<Upcast, String> {
    Ok(Upcast::Drop)
}

fn refuse(_: OldEvent) -> Result<Upcast, String> {
    Err("not this one".into())
}

fn stay(event: OldEvent) -> Result<Upcast, String> {
    Ok(Upcast::One(event))
}

/// Schema 1 held a number.
fn wrap(mut event: OldEvent) -> Result<Upcast, String> {
    let number = event.fields.as_integer().map(i128::from).ok_or("no number")?;
    event.fields = Value::from(number.to_string());
    Ok(event.next())
}

fn check(name: &str, schema_version: u32, json: &str, expected: &[AccountEvent]) {
    let events = decode::<AccountEvent>(&stored(name, schema_version, json));
    assert_eq!(events.as_deref(), Ok(expected), "{name} {schema_version}");
}

fn reason(name: &str, schema_version: u32) -> DecodeReason {
    let decoded = decode::<AccountEvent>(&stored(name, schema_version, "{}"));
    decoded.expect_err("an event that can't be read").reason
}

fn deposited(amount: u64) -> AccountEvent {
    AccountEvent::Deposited { amount, currency: "EUR".into() }
}

#[test]
fn an_old_event_takes_every_step_to_the_present() {
    check("account.deposited", 1, r#"{"cents":5}"#, &[deposited(5)]);
    check("account.deposited", 2, r#"{"cents":5,"currency":"EUR"}"#, &[deposited(5)]);
    check("account.deposited", 3, r#"{"amount":5,"currency":"EUR"}"#, &[deposited(5)]);
}

#[test]
fn an_unnamed_field_is_upcast_as_what_it_is() {
    check("account.labelled", 1, "7", &[AccountEvent::Labelled("7".into())]);
}

#[test]
fn an_old_name_leads_to_a_present_one() {
    check("account.renamed-away", 1, r#"{"cents":5}"#, &[deposited(5)]);
    check("account.renamed-away", 3, r#"{"cents":5}"#, &[deposited(5)]);
}

#[test]
fn one_old_event_becomes_several_or_none() {
    let withdrawn = AccountEvent::Withdrawn { amount: 5 };
    check("ledger.transferred", 1, r#"{"amount":5}"#, &[withdrawn, deposited(5)]);
    check("account.noted", 2, "{}", &[]);
}

#[test]
fn an_upcaster_that_refuses_is_an_error() {
    assert_eq!(reason("account.noted", 3), DecodeReason::Upcast("not this one".into()));
    assert_eq!(reason("ledger.transferred", 1), DecodeReason::Upcast("no amount".into()));
}

#[test]
fn a_schema_version_of_the_future_is_an_error() {
    assert_eq!(reason("account.deposited", 4), DecodeReason::NewerSchema(3));
    assert_eq!(reason("account.withdrawn", 2), DecodeReason::NewerSchema(1));
    // An old name has no present schema; the last known version is that of the last upcaster.
    assert_eq!(reason("account.renamed-away", 4), DecodeReason::NewerSchema(3));
}

#[test]
fn a_schema_version_without_an_upcaster_is_an_error() {
    assert_eq!(reason("account.noted", 1), DecodeReason::NoUpcaster(4));
    assert_eq!(reason("account.withdrawn", 0), DecodeReason::NoUpcaster(1));
    assert_eq!(reason("account.renamed-away", 2), DecodeReason::NoUpcaster(3));
}

#[test]
fn an_upcaster_that_goes_nowhere_ends() {
    assert_eq!(reason("account.stuck", 1), DecodeReason::EndlessUpcast);
}

#[test]
fn old_names_are_owned_and_are_types_too() {
    assert!(AccountEvent::owns("account.renamed-away"));
    assert!(AccountEvent::owns("ledger.transferred"));
    assert_eq!(AccountEvent::types().len(), 7);
}
