//! `derive(Event)` and `derive(Command)`: the stored form of an enum, generated from the enum.
//!
//! ```
//! use factum_kernel::{Event, EventId, Metadata, Timestamp, encode_event};
//!
//! #[derive(factum_macros::Event)]
//! #[event(crate = factum_kernel)]
//! enum AccountEvent {
//!     Opened { owner: String },
//!     MoneyDeposited { cents: u64 },
//! }
//!
//! let event = AccountEvent::MoneyDeposited { cents: 500 };
//! let id = EventId::derived(Timestamp::EPOCH, b"example");
//! let stored = encode_event(&event, id, &Metadata::new(), None)?;
//! assert_eq!(stored.name.as_str(), "account.money-deposited");
//! assert!(AccountEvent::owns("account.opened"));
//! # Ok::<(), factum_kernel::EncodeError>(())
//! ```

mod error;

mod attribute;
mod name;
mod serde_attribute;
mod wire;

mod command;
mod event;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, parse_macro_input};

/// Makes an enum an `Event`: each variant is a type of event.
///
/// An event is stored as a name, a schema version and its fields. The name of the enum and the
/// order of variants are not stored. A variant may be moved freely, and with `name` it may be
/// renamed.
///
/// # What is stored
///
/// The **name** is `<prefix>.<variant>`, both in kebab case. The prefix is the enum's name without
/// a trailing `Event`: `MoneyDeposited` of `AccountEvent` is `account.money-deposited`. Consecutive
/// capitals are one word (`HTTPDone` is `http-done`); digits belong to the word before them.
///
/// The **payload** holds only the fields:
///
/// | variant | payload |
/// |---|---|
/// | `Deposited { cents: u64 }` | a map, `{"cents":5}` |
/// | `Renamed(Name)` | what `Name` itself serialises as |
/// | `Moved(Branch, Branch)` | an array |
/// | `Closed`, `Closed {}`, `Closed()` | an empty map, so that fields with a default can be added |
///
/// Fields need `Serialize` and `Deserialize`; the enum itself does not. Their serde attributes
/// apply: `#[serde(default)]`, `rename`, `alias`, `skip_serializing_if`, `with`, `flatten` and so
/// on. On the enum and on variants, serde's attributes don't apply to what is stored, so they are
/// compile errors that say the remedy; only `crate`, `bound` and `expecting`, which change no form,
/// are let through. A reader ignores unknown fields of an event.
///
/// # On the enum
///
/// - `prefix = "acct"` replaces the first part of the names.
/// - `codec = Json` sets the codec for writing, instead of `Cbor`: any path to a type that is a
///   `Codec`. Events are read with the codec that wrote them, so it can be changed at any time.
/// - `upcast(name = "account.old-name", from = 1, with = path)` reads a whole stored name that no
///   variant has any more. Give one for each schema version that was stored; the function gives the
///   event another name.
/// - `flatten` makes an enum of enums of events; see below.
/// - `crate = factum_kernel` names the path of Factum for generated code, if it is not `::factum`.
///
/// # On a variant
///
/// - `name = "opened"` replaces the second part of the name. Give it when you rename a variant.
/// - `schema_version = 2` sets the number of its present schema; the default is 1. Raise it when
///   stored fields no longer fit, and add an upcaster for the versions before.
/// - `upcast(from = 1, with = path)` is such an upcaster, an `fn(OldEvent) -> Result<Upcast,
///   String>`. It takes the event one step, usually to the next version; give one for each version.
///   An event without one is not skipped: decoding it is an error.
/// - `summary` marks the variant that holds the whole folded state.
///
/// # On a field
///
/// - `tag` tags the event with `field-name:value`, the value by `Display`. A field that is spelled
///   `Option<..>`, `Vec<..>` or `BTreeSet<..>` gives one tag for each item.
/// - `tag = "name"` sets the tag's name; an unnamed field needs it.
/// - `tag, hashed` tags the event with a keyed hash of the value instead of the value. It hides the
///   value in the tag only: the field itself is stored in the payload as it is.
///
/// # Examples
///
/// ```
/// use factum_kernel::{
///     Event, EventId, Metadata, OldEvent, Timestamp, Upcast, encode_event,
/// };
///
/// #[derive(factum_macros::Event)]
/// #[event(crate = factum_kernel, prefix = "acct", codec = factum_kernel::Json)]
/// #[event(upcast(name = "acct.created", from = 1, with = created))]
/// enum AccountEvent {
///     Opened {
///         #[event(tag)]
///         owner: String,
///         #[serde(default, skip_serializing_if = "Vec::is_empty")]
///         notes: Vec<String>,
///     },
///     #[event(name = "deposited", schema_version = 2, upcast(from = 1, with = add_currency))]
///     MoneyDeposited { cents: u64, currency: String },
///     #[event(summary)]
///     Summarised { balance_cents: i64 },
///     Closed,
/// }
///
/// /// Accounts were once created, not opened.
/// fn created(mut event: OldEvent) -> Result<Upcast, String> {
///     event.name = "acct.opened".into();
///     Ok(Upcast::One(event))
/// }
///
/// /// Schema 1 had no currency; all of them were euros.
/// fn add_currency(mut event: OldEvent) -> Result<Upcast, String> {
///     event.set("currency", "EUR");
///     Ok(event.next())
/// }
///
/// let opened = AccountEvent::Opened { owner: "ada".into(), notes: vec![] };
/// let id = EventId::derived(Timestamp::EPOCH, b"example");
/// let stored = encode_event(&opened, id, &Metadata::new(), None)?;
/// assert_eq!(stored.name.as_str(), "acct.opened");
/// assert_eq!(&stored.payload[..], br#"{"owner":"ada"}"#);
/// assert_eq!(stored.tags[0].as_str(), "owner:ada");
/// assert!(AccountEvent::owns("acct.created"));
/// assert!(AccountEvent::Summarised { balance_cents: 5 }.is_summary());
/// # Ok::<(), factum_kernel::EncodeError>(())
/// ```
///
/// # Several enums as one
///
/// With `flatten` each variant wraps one enum of events, and nothing of the outer enum is stored. A
/// reader of several aggregates then needs only one type. An outer enum can be wrapped again.
///
/// ```
/// use factum_kernel::Event;
///
/// #[derive(factum_macros::Event)]
/// #[event(crate = factum_kernel)]
/// enum AccountEvent {
///     Opened,
/// }
///
/// #[derive(factum_macros::Event)]
/// #[event(crate = factum_kernel)]
/// enum TransferEvent {
///     Requested { cents: u64 },
/// }
///
/// #[derive(factum_macros::Event)]
/// #[event(flatten, crate = factum_kernel)]
/// enum BankEvent {
///     Account(AccountEvent),
///     Transfer(TransferEvent),
/// }
///
/// let requested = BankEvent::Transfer(TransferEvent::Requested { cents: 5 });
/// assert_eq!(requested.event_type().name.as_str(), "transfer.requested");
/// assert!(BankEvent::owns("account.opened"));
/// ```
#[proc_macro_derive(Event, attributes(event, serde))]
pub fn derive_event(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    event::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes an enum, or a struct, a `Command`, which can be stored.
///
/// The type itself derives serde's `Serialize` and `Deserialize`, which define its stored form.
/// This derive adds a name for each command, a number for the schema, and the way from a name and
/// fields to the command: `{"cents": 5}` as `account.deposit`. A field that the command does not
/// have is an error, so that no misspelt field is lost; `#[serde(flatten)]` takes such fields.
///
/// On that way the serde attributes of fields hold, and `rename_all` on a struct or a variant,
/// `rename_all_fields` on an enum. Those that only say how the type is written as one value don't
/// matter there: `tag`, `content`, `untagged`, `deny_unknown_fields`, `rename` and `alias`, and
/// `rename_all` on an enum. All others, such as `default` on the type or `try_from`, are compile
/// errors. So are `skip` and `skip_serializing` on a field: a repeat of a command with an id is
/// compared by all that the command is written as.
///
/// The name is `<prefix>.<variant>`, both in kebab case. The prefix is the enum's name without a
/// trailing `Command`. A struct is one command: its name is the struct's name without a trailing
/// `Command`, after a prefix only if one is given.
///
/// # Attributes
///
/// - `prefix = "acct"`, on the type, sets the first part of the name.
/// - `name = "open"`, on a variant or a struct, sets the second part.
/// - `schema_version = 2`, on the type, is the number of its present schema; 1 if not given.
/// - `crate = factum_kernel`, on the type, names the path of Factum for generated code, if it is
///   not `::factum`.
///
/// # Examples
///
/// ```
/// use factum_kernel::Command;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, factum_macros::Command)]
/// #[command(crate = factum_kernel, schema_version = 2)]
/// enum AccountCommand {
///     Open { owner: String },
///     #[command(name = "deposit")]
///     DepositMoney { cents: u64 },
/// }
///
/// #[derive(Serialize, Deserialize, factum_macros::Command)]
/// #[command(crate = factum_kernel, prefix = "bank")]
/// struct TransferMoney {
///     cents: u64,
/// }
///
/// assert_eq!(AccountCommand::Open { owner: "ada".into() }.name(), "account.open");
/// assert_eq!(AccountCommand::DepositMoney { cents: 5 }.name(), "account.deposit");
/// assert_eq!(AccountCommand::SCHEMA_VERSION, 2);
/// assert_eq!(AccountCommand::NAMES, ["account.open", "account.deposit"]);
/// assert_eq!(TransferMoney { cents: 5 }.name(), "bank.transfer-money");
/// ```
#[proc_macro_derive(Command, attributes(command))]
pub fn derive_command(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    command::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Wraps generated items in a scope of their own. They repeat the types of the user's fields. Lints
/// about these types were already reported, or allowed, in the user's code.
fn constant(items: &TokenStream) -> TokenStream {
    quote! {
        #[allow(deprecated, unused_qualifications, clippy::all, clippy::pedantic)]
        const _: () = {
            #items
        };
    }
}
