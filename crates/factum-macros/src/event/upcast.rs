//! Upcasters: `upcast(from = 1, with = path)`, checked, and the tables made of them.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{LitStr, Path, Result, meta::ParseNestedMeta};

use crate::{
    attribute::{self, Place, SchemaVersion, key, set, text, unknown},
    error::{Errors, Misuse},
    name::{self, Names},
};

const PLACES: &[Place] = &[Place { name: "an upcaster", keys: &["name", "from", "with"] }];

/// One `upcast(..)`.
pub(super) struct UpcastAttribute {
    key: Path,
    name: Option<LitStr>,
    step: Step,
}

/// One step: the schema version that it starts from, and the function.
struct Step {
    from: SchemaVersion,
    with: Path,
}

impl UpcastAttribute {
    pub(super) fn parse(meta: &ParseNestedMeta<'_>) -> Result<Self> {
        let mut name = None;
        let mut from = None;
        let mut with = None;
        if !meta.input.peek(syn::token::Paren) {
            return Err(Misuse::UpcastIncomplete.at(&meta.path));
        }
        meta.parse_nested_meta(|part| match key(&part).as_str() {
            "name" => set(&mut name, &part, text),
            "from" => set(&mut from, &part, attribute::schema_version),
            "with" => set(&mut with, &part, attribute::path),
            _ => Err(unknown(&part, PLACES, 0)),
        })?;
        let (Some(from), Some(with)) = (from, with) else {
            return Err(Misuse::UpcastIncomplete.at(&meta.path));
        };
        Ok(Self { key: meta.path.clone(), name, step: Step { from, with } })
    }
}

/// The upcasters of one stored name.
#[derive(Default)]
pub(super) struct Upcasters(Vec<Step>);

impl Upcasters {
    /// Those of a variant with this schema version.
    pub(super) fn of_variant(
        attributes: Vec<UpcastAttribute>,
        current: u32,
        errors: &mut Errors,
    ) -> Self {
        let mut upcasters = Self::default();
        for UpcastAttribute { name, step, .. } in attributes {
            if let Some(name) = name {
                errors.push(Misuse::UpcastNamed.at(name));
            }
            let from = step.from.number;
            if from >= current {
                errors.push(Misuse::UpcastTooHigh { from, current }.at(&step.from.literal));
            }
            upcasters.add(step, errors);
        }
        upcasters
    }

    fn add(&mut self, step: Step, errors: &mut Errors) {
        let from = step.from.number;
        if self.0.iter().any(|other| other.from.number == from) {
            errors.push(Misuse::UpcastTwice(from).at(&step.from.literal));
        }
        self.0.push(step);
    }

    /// The highest schema version that an upcaster starts from.
    fn highest(&self) -> u32 {
        self.0.iter().map(|step| step.from.number).max().unwrap_or_default()
    }

    /// The table that `upcast_event` takes.
    pub(super) fn table(&self) -> TokenStream {
        let from = self.0.iter().map(|step| step.from.number);
        let with = self.0.iter().map(|step| &step.with);
        quote!(&[#((#from, #with)),*])
    }
}

/// A stored name that no variant has any more.
pub(super) struct OldName {
    pub(super) name: String,
    pub(super) upcasters: Upcasters,
}

impl OldName {
    /// The enum's upcasters, by the name they read.
    pub(super) fn group(
        attributes: Vec<UpcastAttribute>,
        present: &Names,
        errors: &mut Errors,
    ) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for UpcastAttribute { key, name, step } in attributes {
            let name = name.ok_or_else(|| Misuse::UpcastUnnamed.at(key));
            let Some(name) = errors.keep(name.and_then(|name| old_name(&name, present))) else {
                continue;
            };
            if !groups.iter().any(|group| group.name == name) {
                groups.push(Self { name: name.clone(), upcasters: Upcasters::default() });
            }
            let group = groups.iter_mut().find(|group| group.name == name).expect("just added");
            group.upcasters.add(step, errors);
        }
        groups
    }

    /// The last schema version of the name that this program knows. A higher one was written by a
    /// program that used the name for longer; the error then names the last version that this
    /// program reads.
    pub(super) fn current(&self) -> u32 {
        self.upcasters.highest()
    }
}

fn old_name(literal: &LitStr, present: &Names) -> Result<String> {
    let name = name::part(literal)?;
    match present.variant_of(&name) {
        Some(variant) => Err(Misuse::UpcastOfPresent { name: &name, variant }.at(literal)),
        None => Ok(name),
    }
}
