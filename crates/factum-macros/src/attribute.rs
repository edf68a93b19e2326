//! The parsing that the attributes of both derives share.

use quote::ToTokens;
use syn::{
    Attribute, LitInt, LitStr, Path, Result, Token,
    meta::ParseNestedMeta,
    parse::{Parse, ParseStream},
};

use crate::error::{Errors, Misuse};

/// The place of an attribute, and the keys that it takes there.
pub(crate) struct Place {
    /// A name such as `a variant`.
    pub(crate) name: &'static str,
    /// Its keys.
    pub(crate) keys: &'static [&'static str],
}

/// Calls `parse` with each key of each `#[name(..)]`. An attribute ends at its first error.
pub(crate) fn each_key(
    attributes: &[Attribute],
    name: &str,
    errors: &mut Errors,
    mut parse: impl FnMut(&ParseNestedMeta<'_>) -> Result<()>,
) {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident(name)) {
        errors.keep(attribute.parse_nested_meta(|meta| parse(&meta)));
    }
}

/// The text of the key.
pub(crate) fn key(meta: &ParseNestedMeta<'_>) -> String {
    meta.path.to_token_stream().to_string().replace(' ', "")
}

/// Takes the value of a key that may be given once.
pub(crate) fn set<T>(
    slot: &mut Option<T>,
    meta: &ParseNestedMeta<'_>,
    parse: impl FnOnce(&ParseNestedMeta<'_>) -> Result<T>,
) -> Result<()> {
    if slot.is_some() {
        return Err(Misuse::Twice(&key(meta)).at(&meta.path));
    }
    *slot = Some(parse(meta)?);
    Ok(())
}

/// A key without a value.
pub(crate) fn flag(meta: &ParseNestedMeta<'_>) -> Result<Path> {
    if ends(meta) { Ok(meta.path.clone()) } else { Err(Misuse::Value(&key(meta)).at(&meta.path)) }
}

/// Returns whether nothing more follows the key.
pub(crate) fn ends(meta: &ParseNestedMeta<'_>) -> bool {
    meta.input.is_empty() || meta.input.peek(Token![,])
}

/// The value in `= "text"`.
pub(crate) fn text(meta: &ParseNestedMeta<'_>) -> Result<LitStr> {
    value(meta, " = \"..\"", Parse::parse)
}

/// The value in `= a::path`.
pub(crate) fn path(meta: &ParseNestedMeta<'_>) -> Result<Path> {
    value(meta, " = a::path", Parse::parse)
}

/// The value in `= a::path` or `= "a::path"`: the path of the crate that generated code names.
pub(crate) fn crate_path(meta: &ParseNestedMeta<'_>) -> Result<Path> {
    value(meta, " = a::path", |input| {
        if input.peek(LitStr) {
            input.parse::<LitStr>()?.parse_with(Path::parse_mod_style)
        } else {
            input.call(Path::parse_mod_style)
        }
    })
}

/// The value after the key. The error shows its form.
fn value<T>(
    meta: &ParseNestedMeta<'_>,
    form: &'static str,
    parse: impl FnOnce(ParseStream<'_>) -> Result<T>,
) -> Result<T> {
    let parsed = meta.value().and_then(parse);
    parsed.map_err(|_| Misuse::Form(&key(meta), form).at(&meta.path))
}

/// The path of the crate, or the default if the user set none.
pub(crate) fn crate_path_or_default(path: Option<Path>) -> Path {
    path.unwrap_or_else(|| syn::parse_quote!(::factum))
}

/// The number of a schema version, and its place.
pub(crate) struct SchemaVersion {
    /// The number, at least 1.
    pub(crate) number: u32,
    /// The literal in the source.
    pub(crate) literal: LitInt,
}

/// The value in `= 2`.
pub(crate) fn schema_version(meta: &ParseNestedMeta<'_>) -> Result<SchemaVersion> {
    let value: Result<LitInt> = meta.value().and_then(Parse::parse);
    let literal = value.map_err(|_| Misuse::SchemaVersion.at(&meta.path))?;
    match literal.base10_parse() {
        Ok(number) if number > 0 => Ok(SchemaVersion { number, literal }),
        _ => Err(Misuse::SchemaVersion.at(literal)),
    }
}

/// The error of a key that `places[here]` does not take.
pub(crate) fn unknown(meta: &ParseNestedMeta<'_>, places: &[Place], here: usize) -> syn::Error {
    let key = key(meta);
    let Place { name: place, keys } = places[here];
    let known = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    match places.iter().find(|place| place.keys.contains(&key.as_str())) {
        Some(Place { name: home, .. }) => {
            Misuse::MisplacedKey { key: &key, home, place, known: &known }.at(&meta.path)
        }
        None => Misuse::UnknownKey { key: &key, place, known: &known }.at(&meta.path),
    }
}
