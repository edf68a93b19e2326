//! serde's attributes on a type and on its variants. Those on fields are handed to serde with the
//! fields; these are not, so each is either harmless, understood, or refused.
//!
//! serde has, on a type: `rename`, `rename_all`, `rename_all_fields`, `deny_unknown_fields`, `tag`,
//! `content`, `untagged`, `bound`, `default`, `remote`, `transparent`, `from`, `try_from`, `into`,
//! `crate`, `expecting`, `variant_identifier`, `field_identifier`.
//!
//! On a variant: `rename`, `alias`, `rename_all`, `skip`, `skip_serializing`, `skip_deserializing`,
//! `serialize_with`, `deserialize_with`, `with`, `bound`, `borrow`, `other`, `untagged`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, Fields, Meta, Token, punctuated::Punctuated};

use crate::{
    error::{Errors, Misuse},
    wire::is_serde,
};

/// Those that change neither names nor fields: paths, bounds and texts of the code that serde
/// generates.
const HARMLESS: &[&str] = &["crate", "bound", "expecting"];

/// Those that say how a command's own type is written as one value, names of variants included. The
/// fields of a command are read without them.
const OF_THE_WHOLE: &[&str] =
    &["tag", "content", "untagged", "rename", "alias", "deny_unknown_fields", "borrow"];

/// The place of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    Enum,
    Struct,
    Variant,
    /// A variant or a field of an enum of enums, of which nothing is stored.
    Flattened,
}

/// Refuses what `derive(Event)` does not apply.
pub(crate) fn check_event(attributes: &[Attribute], on: On, errors: &mut Errors) {
    for meta in metas(attributes, errors) {
        let key = key(&meta);
        if !HARMLESS.contains(&key.as_str()) {
            let remedy = remedy_in_event(&key, on);
            let derive = "Event";
            errors.push(Misuse::SerdeIgnored { derive, key: &key, remedy }.at(meta.path()));
        }
    }
}

fn remedy_in_event(key: &str, on: On) -> &'static str {
    match (key, on) {
        (_, On::Flattened) => "nothing of this enum is stored, so remove it",
        ("rename", On::Enum) => "set the first part of the names with #[event(prefix = \"..\")]",
        ("rename_all", On::Enum) | ("rename", _) => {
            "set the name of an event with #[event(name = \"..\")] on its variant"
        }
        ("rename_all" | "rename_all_fields", _) => {
            "rename each field with #[serde(rename = \"..\")]"
        }
        ("alias", _) => "read an old name with #[event(upcast(name = \"..\", ..))] on the enum",
        ("default", _) => "put #[serde(default)] on each field",
        _ => "remove it, and keep a type with such a form apart from the enum of events",
    }
}

/// Refuses what `derive(Command)` does not apply when it reads a command from its fields. Returns
/// the attribute that renames the fields of this struct, variant, or variants of this enum.
pub(crate) fn check_command(
    attributes: &[Attribute],
    on: On,
    errors: &mut Errors,
) -> Option<TokenStream> {
    let mut renames = None;
    for meta in metas(attributes, errors) {
        let key = key(&meta);
        match (key.as_str(), on) {
            ("rename_all_fields", On::Enum) | ("rename_all", On::Struct | On::Variant) => {
                renames = Some(as_rename_all(&meta));
            }
            ("rename_all", On::Enum) => {}
            (known, _) if HARMLESS.contains(&known) || OF_THE_WHOLE.contains(&known) => {}
            _ => {
                let remedy = match key.as_str() {
                    "default" => "put #[serde(default)] on each field",
                    _ => "remove it, and let the command's fields have types with such a form",
                };
                let derive = "Command";
                errors.push(Misuse::SerdeIgnored { derive, key: &key, remedy }.at(meta.path()));
            }
        }
    }
    renames
}

/// Refuses a field of a command that is left out when the command is written.
pub(crate) fn check_command_fields(fields: &Fields, errors: &mut Errors) {
    for field in fields {
        for meta in metas(&field.attrs, errors) {
            let key = key(&meta);
            if matches!(key.as_str(), "skip" | "skip_serializing") {
                errors.push(Misuse::CommandFieldLeftOut { key: &key }.at(meta.path()));
            }
        }
    }
}

/// The value of `rename_all_fields` or `rename_all`, under the name that a struct takes.
fn as_rename_all(meta: &Meta) -> TokenStream {
    match meta {
        Meta::Path(_) => quote!(rename_all),
        Meta::List(list) => {
            let tokens = &list.tokens;
            quote!(rename_all(#tokens))
        }
        Meta::NameValue(pair) => {
            let value = &pair.value;
            quote!(rename_all = #value)
        }
    }
}

fn metas(attributes: &[Attribute], errors: &mut Errors) -> Vec<Meta> {
    let mut metas = Vec::new();
    for attribute in attributes.iter().filter(|attribute| is_serde(attribute)) {
        let parsed = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
        metas.extend(errors.keep(parsed).into_iter().flatten());
    }
    metas
}

fn key(meta: &Meta) -> String {
    meta.path().to_token_stream().to_string()
}
