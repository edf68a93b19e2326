//! Names and schema versions of commands.

use factum_kernel::{Cbor, Command, Json};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, factum_macros::Command)]
#[command(crate = factum_kernel)]
enum BankAccountCommand {
    Open {
        owner: String,
    },
    DepositMoney(u64),
    #[command(name = "shut")]
    Close,
}

#[derive(Debug, Serialize, Deserialize, factum_macros::Command)]
#[command(crate = "factum_kernel", prefix = "acct", schema_version = 2)]
enum Named {
    Open,
}

/// The default path, `::factum`.
#[derive(Debug, Serialize, Deserialize, factum_macros::Command)]
struct TransferMoney {
    cents: u64,
}

#[derive(Debug, Serialize, Deserialize, factum_macros::Command)]
#[command(prefix = "ledger", name = "close", schema_version = 3)]
struct CloseBooks;

#[derive(Debug, Serialize, Deserialize, factum_macros::Command)]
#[command(prefix = "ledger")]
struct OpenBooksCommand(u16);

#[test]
fn a_command_is_named_by_prefix_and_variant() {
    assert_eq!(BankAccountCommand::Open { owner: "ada".into() }.name(), "bank-account.open");
    assert_eq!(BankAccountCommand::DepositMoney(5).name(), "bank-account.deposit-money");
    assert_eq!(BankAccountCommand::Close.name(), "bank-account.shut");
    assert_eq!(Named::Open.name(), "acct.open");
}

#[test]
fn a_struct_is_named_by_itself_and_a_prefix_if_it_has_one() {
    assert_eq!(TransferMoney { cents: 5 }.name(), "transfer-money");
    assert_eq!(CloseBooks.name(), "ledger.close");
    assert_eq!(OpenBooksCommand(2026).name(), "ledger.open-books");
}

#[test]
fn the_schema_version_is_one_unless_set() {
    assert_eq!(BankAccountCommand::SCHEMA_VERSION, 1);
    assert_eq!(Named::SCHEMA_VERSION, 2);
    assert_eq!(CloseBooks::SCHEMA_VERSION, 3);
}

/// Serde attributes of fields are those of the wire.
#[derive(Debug, PartialEq, Serialize, Deserialize, factum_macros::Command)]
#[command(crate = factum_kernel, prefix = "order")]
enum OrderCommand {
    Place {
        #[serde(rename = "sku")]
        product: String,
        #[serde(default)]
        pieces: u64,
    },
    Move(u16, Option<String>),
}

fn read<C: Command>(name: &str, json: &str) -> Option<Result<C, String>> {
    let read = C::from_fields::<Json>(name, json.as_bytes());
    read.map(|read| read.map_err(|error| error.to_string()))
}

#[test]
fn a_command_is_read_by_its_name_from_its_fields() {
    assert_eq!(OrderCommand::NAMES, ["order.place", "order.move"]);
    let place = OrderCommand::Place { product: "tea".into(), pieces: 0 };
    assert_eq!(read("order.place", r#"{"sku": "tea"}"#), Some(Ok(place)));
    assert_eq!(read("order.move", "[7, null]"), Some(Ok(OrderCommand::Move(7, None))));
    let deposit = read("bank-account.deposit-money", "5");
    assert!(matches!(deposit, Some(Ok(BankAccountCommand::DepositMoney(5)))), "{deposit:?}");
    let shut = read("bank-account.shut", "{}");
    assert!(matches!(shut, Some(Ok(BankAccountCommand::Close))), "{shut:?}");
    let transfer = read("transfer-money", r#"{"cents": 5}"#);
    assert!(matches!(transfer, Some(Ok(TransferMoney { cents: 5 }))), "{transfer:?}");
    assert!(matches!(read("ledger.close", "{}"), Some(Ok(CloseBooks))));
    assert!(matches!(read("ledger.open-books", "2026"), Some(Ok(OpenBooksCommand(2026)))));
    // In any codec.
    let read = BankAccountCommand::from_fields::<Cbor>("bank-account.deposit-money", &[5]);
    assert!(matches!(read, Some(Ok(BankAccountCommand::DepositMoney(5)))));
}

/// As clients write it that name fields otherwise than Rust does.
#[derive(Debug, PartialEq, Serialize, Deserialize, factum_macros::Command)]
#[command(crate = factum_kernel, prefix = "room")]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
enum RoomCommand {
    BookRoom {
        first_night: u64,
    },
    #[serde(rename = "free", rename_all = "kebab-case")]
    FreeRoom {
        last_night: u64,
    },
}

#[derive(Debug, PartialEq, Serialize, Deserialize, factum_macros::Command)]
#[command(crate = factum_kernel)]
#[serde(rename_all(deserialize = "camelCase"))]
struct CleanRoom {
    on_floor: u64,
}

#[test]
fn fields_are_named_as_serde_names_all_of_them() {
    let book = RoomCommand::BookRoom { first_night: 7 };
    assert_eq!(read("room.book-room", r#"{"firstNight": 7}"#), Some(Ok(book)));
    let free = RoomCommand::FreeRoom { last_night: 9 };
    assert_eq!(read("room.free-room", r#"{"last-night": 9}"#), Some(Ok(free)));
    let clean = CleanRoom { on_floor: 2 };
    assert_eq!(read("clean-room", r#"{"onFloor": 2}"#), Some(Ok(clean)));
    let snake = read::<RoomCommand>("room.book-room", r#"{"first_night": 7}"#).unwrap();
    assert!(snake.unwrap_err().starts_with("unknown field `first_night`, expected `firstNight`"));
}

#[test]
fn what_is_no_command_is_told() {
    assert_eq!(read::<OrderCommand>("order.Place", "{}"), None);
    let missing = read::<OrderCommand>("order.place", r#"{"pieces": 2}"#).unwrap().unwrap_err();
    assert!(missing.starts_with("missing field `sku`"), "{missing}");
    let other = read::<OrderCommand>("order.place", "7").unwrap().unwrap_err();
    assert!(other.contains("expected the fields of order.place"), "{other}");
    assert!(read::<OrderCommand>("order.place", "").unwrap().is_err());
}

#[derive(Debug, PartialEq, Serialize, Deserialize, factum_macros::Command)]
#[command(crate = factum_kernel, prefix = "book")]
enum BookCommand {
    Note {
        #[serde(default)]
        text: String,
    },
    Import(std::collections::BTreeMap<String, u64>),
    Close,
    Label {
        shelf: u64,
        #[serde(default, flatten)]
        labels: std::collections::BTreeMap<String, u64>,
    },
}

fn refused(name: &str, json: &str) -> String {
    read::<BookCommand>(name, json).expect("a known name").expect_err("JSON that is refused")
}

#[test]
fn a_field_that_the_command_does_not_have_is_refused_by_its_name() {
    let refusal = refused("book.note", r#"{"txet": "tea"}"#);
    assert!(refusal.starts_with("unknown field `txet`, expected `text`"), "{refusal}");
    let refusal = refused("book.close", r#"{"now": true}"#);
    assert!(refusal.starts_with("unknown field `now`"), "{refusal}");
    // A flattened field takes every field that the others leave.
    let label = read("book.label", r#"{"shelf": 1, "row": 2}"#);
    let labels = [("row".to_owned(), 2)].into();
    assert_eq!(label, Some(Ok(BookCommand::Label { shelf: 1, labels })));
}

#[test]
fn fields_with_names_are_read_from_an_object_only() {
    for (name, json) in [
        ("book.note", r#"["tea"]"#),
        ("book.note", "[]"),
        ("book.note", "null"),
        ("book.close", "[]"),
        ("book.close", "null"),
        ("book.label", "[1]"),
    ] {
        let refusal = refused(name, json);
        assert!(refusal.contains(&format!("expected the fields of {name}")), "{refusal}");
    }
}

#[test]
fn no_text_means_that_no_field_is_given() {
    assert_eq!(read("book.note", ""), Some(Ok(BookCommand::Note { text: String::new() })));
    assert_eq!(read("book.close", ""), Some(Ok(BookCommand::Close)));
    assert_eq!(refused("book.label", ""), "missing field `shelf`");
    // A field without a name can't be left out.
    assert!(refused("book.import", "").starts_with("EOF"));
    assert_eq!(read("book.import", "{}"), Some(Ok(BookCommand::Import([].into()))));
}
