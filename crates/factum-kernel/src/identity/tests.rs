use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::*;
use crate::{
    codec::{Codec, CodecError},
    event::{Content, EventName},
    position::Position,
    recorded::EventHeader,
    stream::StreamId,
    version::StreamVersion,
};

#[derive(Serialize, Deserialize)]
enum Pay {
    Deposit { cents: u64 },
    Withdraw { cents: u64 },
    Note { text: Unwritable },
}

#[derive(Deserialize)]
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it is too long"))
    }
}

impl Command for Pay {
    const SCHEMA_VERSION: u32 = 1;
    const NAMES: &'static [&'static str] = &["account.deposit", "account.withdraw", "account.note"];

    fn name(&self) -> &'static str {
        match self {
            Self::Deposit { .. } => "account.deposit",
            Self::Withdraw { .. } => "account.withdraw",
            Self::Note { .. } => "account.note",
        }
    }

    fn from_fields<C: Codec>(_: &str, _: &[u8]) -> Option<Result<Self, CodecError>> {
        None
    }
}

fn deposit(key: &str, cents: u64) -> NamedCommand {
    NamedCommand::of_aggregate("account", key, &Pay::Deposit { cents }).unwrap()
}

fn decided(cents: u64) -> NamedCommand {
    NamedCommand::of_model(&Pay::Deposit { cents }).unwrap()
}

fn id() -> CommandId {
    CommandId::derived("order-17", "pay")
}

fn once(commands: impl IntoIterator<Item = NamedCommand>) -> Once {
    Once::new(id(), commands)
}

fn key() -> TagKey {
    TagKey::new([1; 32])
}

/// An event of a stream, as the log has it.
fn recorded(stream: &str, new: &NewEvent) -> RecordedEvent {
    let header = EventHeader {
        position: Position::new(1),
        version: StreamVersion::new(1),
        recorded_at: Timestamp::EPOCH,
        id: new.id,
        schema_version: 1,
        content: Content::Json,
    };
    let stream: StreamId = stream.parse().unwrap();
    RecordedEvent::from_new(header, stream.as_ref(), new)
}

fn new() -> NewEvent {
    let id = EventId::derived(Timestamp::EPOCH, b"x");
    NewEvent::new(id, EventName::from_static("account.paid"), Content::Json, Bytes::new())
}

/// The first event of these commands.
fn first_of(once: &Once) -> RecordedEvent {
    let mut first = new();
    once.sign(&mut first, Some(&key()));
    recorded("account-ada", &first)
}

/// The outcome of comparing an event with commands that have the same id: the number of events, or
/// the error.
fn found(event: &RecordedEvent, once: &Once) -> Result<usize, String> {
    let events = std::iter::once(event);
    let found = once.recognise(events, Some(&key()));
    found.map(|events| events.len()).map_err(|taken| taken.to_string())
}

/// Logs hold this entry. The digest of the content is part of it, so no version of Factum may
/// change it.
#[test]
fn the_stored_form_stays_as_it_is() {
    let entry = Entry::write(&[deposit("ada", 5)], Some(&key()));
    assert_eq!(entry, "account.deposit\t1\t31f9f9f80aa1368a\taccount-ada\n");
    let unsealed = Entry::write(&[deposit("ada", 5)], None);
    assert_eq!(unsealed, "account.deposit\t1\t\taccount-ada\n");
    let id = CommandId::derived("order-17", "deposit");
    assert_eq!(id.to_string(), "00000000-0000-7bce-bb4a-64e03d4d2eda");
}

#[test]
fn cause_and_purpose_are_kept_apart() {
    let ids = [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", "a"), ("abc", "b")];
    let ids: std::collections::HashSet<_> =
        ids.iter().map(|(cause, purpose)| CommandId::derived(cause, purpose)).collect();
    assert_eq!(ids.len(), 5);
}

#[test]
fn a_command_is_compared_by_target_name_and_content() {
    let event = first_of(&once([deposit("ada", 5)]));
    assert_eq!(found(&event, &once([deposit("ada", 5)])), Ok(1));
    let text = "the id names another command, derive an id from its cause and purpose: ";
    let withdraw =
        NamedCommand::of_aggregate("account", "ada", &Pay::Withdraw { cents: 5 }).unwrap();
    for (other, told) in [
        (deposit("bob", 5), "sent=[account.deposit on account-bob]"),
        (withdraw, "sent=[account.withdraw on account-ada]"),
        (decided(5), "sent=[account.deposit on $decision]"),
        (deposit("ada", 6), "sent=[account.deposit on account-ada], with another content"),
    ] {
        let stored = "stored=[account.deposit on account-ada]";
        let told = format!("{text}id={} {stored} {told}", id());
        assert_eq!(found(&event, &once([other])), Err(told));
    }
}

#[test]
fn contents_are_compared_only_at_the_same_schema_version() {
    let event = first_of(&once([deposit("ada", 5)]));
    let newer = |cents| NamedCommand { schema_version: 2, ..deposit("ada", cents) };
    assert_eq!(found(&event, &once([newer(6)])), Ok(1));
    let event = first_of(&once([newer(5)]));
    assert_eq!(found(&event, &once([deposit("ada", 6)])), Ok(1));
    assert!(found(&event, &once([newer(6)])).is_err());
}

/// Otherwise the id would name every content.
#[test]
fn a_command_that_can_not_be_serialised_has_no_identity() {
    let huge = Pay::Note { text: Unwritable };
    let refused = NamedCommand::of_aggregate("account", "ada", &huge).unwrap_err();
    let told = "command can't be serialised: it is too long: command=account.note";
    assert_eq!(refused.to_string(), told);
    assert_eq!(NamedCommand::of_model(&huge), Err(refused));
}

/// A plain hash would let every reader of the log guess the content.
#[test]
fn without_a_key_no_content_is_stored_or_compared() {
    let mut first = new();
    once([deposit("ada", 5)]).sign(&mut first, None);
    let event = recorded("account-ada", &first);
    assert_eq!(found(&event, &once([deposit("ada", 6)])), Ok(1));
    assert!(found(&event, &once([deposit("bob", 5)])).is_err());
}

/// An earlier version of Factum stored them.
#[test]
fn events_that_name_no_command_are_those_of_their_targets() {
    let event = recorded("account-ada", &new());
    assert_eq!(found(&event, &once([deposit("ada", 5)])), Ok(1));
    assert_eq!(found(&event, &once([deposit("bob", 5)])), Ok(0));
    // An event that names another command doesn't change that.
    let other = first_of(&once([deposit("bob", 5)]));
    let ada = once([deposit("ada", 5)]);
    let found_among = |events: &[&RecordedEvent]| {
        let found = ada.recognise(events.iter().copied(), Some(&key()));
        found.map(|events| events.len()).map_err(|taken| taken.stored[0].target().to_owned())
    };
    assert_eq!(found_among(&[&event, &other]), Ok(1));
    // It is followed by the other events of its own command.
    assert_eq!(found_among(&[&other, &event]), Err("account-bob".into()));
}

/// In earlier versions only the events of commands had the tag.
#[test]
fn a_transaction_and_a_decision_take_no_events_of_an_earlier_command() {
    let event = recorded("account-ada", &new());
    assert_eq!(found(&event, &once([deposit("bob", 5), deposit("ada", 5)])), Ok(0));
    assert_eq!(found(&event, &once([decided(5)])), Ok(0));
}

/// A later version of Factum stored them.
#[test]
fn events_with_an_unknown_entry_are_those_of_their_targets() {
    let unreadable = new().with_metadata(crate::Metadata::new().with(COMMAND_TAG, "new form"));
    let event = recorded("account-ada", &unreadable);
    assert_eq!(found(&event, &once([deposit("ada", 5)])), Ok(1));
    assert_eq!(found(&event, &once([deposit("bob", 5)])), Ok(0));
    assert_eq!(found(&event, &once([deposit("bob", 5), deposit("ada", 5)])), Ok(1));
    assert_eq!(found(&event, &once([decided(5)])), Ok(1));
}

#[test]
fn all_steps_of_a_transaction_are_compared_however_many() {
    for count in [2, 40, 500] {
        let steps = |changed: Option<usize>| {
            let key = move |at| if changed == Some(at) { "eve".into() } else { format!("{at}") };
            once((0..count).map(move |at| deposit(&key(at), 1)))
        };
        let event = first_of(&steps(None));
        let entry = event.metadata();
        assert!(entry.extra[COMMAND_TAG].len() <= METADATA_TEXT_BYTES_MAX, "{count}");
        let again = steps(None).recognise(std::iter::once(&event), Some(&key()));
        assert!(again.is_ok(), "{count}");
        for changed in [0, count / 2, count - 1] {
            assert!(found(&event, &steps(Some(changed))).is_err(), "{changed} of {count}");
        }
        for other in [1, count - 1, count + 1] {
            let other = once((0..other).map(|at| deposit(&at.to_string(), 1)));
            assert!(found(&event, &other).is_err(), "{count}");
        }
    }
}
