//! `#[event(..)]` on the enum, on a variant and on a field.

use syn::{Attribute, LitStr, Path};

use super::upcast::UpcastAttribute;
use crate::{
    attribute::{
        Place, SchemaVersion, crate_path, each_key, ends, flag, key, path, schema_version, set,
        text, unknown,
    },
    error::{Errors, Misuse},
};

const ENUM: usize = 0;
const VARIANT: usize = 1;
const FIELD: usize = 2;

const PLACES: &[Place] = &[
    Place { name: "the enum", keys: &["prefix", "codec", "upcast", "flatten", "crate"] },
    Place { name: "a variant", keys: &["name", "schema_version", "upcast", "summary"] },
    Place { name: "a field", keys: &["tag", "hashed"] },
];

/// The attribute on the enum.
#[derive(Default)]
pub(super) struct EnumAttribute {
    pub(super) crate_path: Option<Path>,
    pub(super) prefix: Option<LitStr>,
    pub(super) codec: Option<Path>,
    pub(super) flatten: Option<Path>,
    pub(super) upcasts: Vec<UpcastAttribute>,
    /// All keys except `crate` and `flatten`, which an enum with `flatten` refuses.
    pub(super) others: Vec<Path>,
}

impl EnumAttribute {
    pub(super) fn parse(attributes: &[Attribute], errors: &mut Errors) -> Self {
        let mut found = Self::default();
        each_key(attributes, "event", errors, |meta| {
            let key = key(meta);
            if !matches!(key.as_str(), "crate" | "flatten") {
                found.others.push(meta.path.clone());
            }
            match key.as_str() {
                "crate" => set(&mut found.crate_path, meta, crate_path),
                "prefix" => set(&mut found.prefix, meta, text),
                "codec" => set(&mut found.codec, meta, path),
                "flatten" => set(&mut found.flatten, meta, flag),
                "upcast" => UpcastAttribute::parse(meta).map(|one| found.upcasts.push(one)),
                _ => Err(unknown(meta, PLACES, ENUM)),
            }
        });
        found
    }
}

/// The attribute on a variant.
#[derive(Default)]
pub(super) struct VariantAttribute {
    pub(super) name: Option<LitStr>,
    pub(super) schema_version: Option<SchemaVersion>,
    pub(super) summary: Option<Path>,
    pub(super) upcasts: Vec<UpcastAttribute>,
}

impl VariantAttribute {
    pub(super) fn parse(attributes: &[Attribute], errors: &mut Errors) -> Self {
        let mut found = Self::default();
        each_key(attributes, "event", errors, |meta| match key(meta).as_str() {
            "name" => set(&mut found.name, meta, text),
            "schema_version" => set(&mut found.schema_version, meta, schema_version),
            "summary" => set(&mut found.summary, meta, flag),
            "upcast" => UpcastAttribute::parse(meta).map(|one| found.upcasts.push(one)),
            _ => Err(unknown(meta, PLACES, VARIANT)),
        });
        found
    }
}

/// The attribute on a field.
#[derive(Default)]
pub(super) struct FieldAttribute {
    /// The key `tag`, with the name if one is given.
    pub(super) tag: Option<(Path, Option<LitStr>)>,
    pub(super) hashed: Option<Path>,
}

impl FieldAttribute {
    pub(super) fn parse(attributes: &[Attribute], errors: &mut Errors) -> Self {
        let mut found = Self::default();
        each_key(attributes, "event", errors, |meta| match key(meta).as_str() {
            "tag" => set(&mut found.tag, meta, |meta| {
                if ends(meta) {
                    return Ok((meta.path.clone(), None));
                }
                let name = text(meta).map_err(|_| Misuse::TagForm.at(&meta.path))?;
                Ok((meta.path.clone(), Some(name)))
            }),
            "hashed" => set(&mut found.hashed, meta, flag),
            _ => Err(unknown(meta, PLACES, FIELD)),
        });
        found
    }
}
