//! A variant, by its attributes and fields.

use proc_macro2::Ident;
use syn::Fields;

use super::{attribute::VariantAttribute, payload, tag::Tag, upcast::Upcasters};
use crate::{
    error::Errors,
    name::Names,
    serde_attribute::{On, check_event},
};

/// A variant, checked.
pub(super) struct Variant<'a> {
    pub(super) ident: &'a Ident,
    /// `<prefix>.<variant>`.
    pub(super) stored_name: String,
    pub(super) schema_version: u32,
    pub(super) is_summary: bool,
    pub(super) upcasters: Upcasters,
    pub(super) fields: &'a Fields,
    pub(super) tags: Vec<Tag<'a>>,
}

impl<'a> Variant<'a> {
    /// Parses the variant, and reports all errors in it; `None` if it has no stored name.
    pub(super) fn parse(
        variant: &'a syn::Variant,
        names: Option<&mut Names>,
        errors: &mut Errors,
    ) -> Option<Self> {
        let attribute = VariantAttribute::parse(&variant.attrs, errors);
        let schema_version = attribute.schema_version.map_or(1, |version| version.number);
        let upcasters = Upcasters::of_variant(attribute.upcasts, schema_version, errors);
        check_event(&variant.attrs, On::Variant, errors);
        payload::check(&variant.fields, errors);
        let tags = (variant.fields.iter().zip(variant.fields.members()))
            .filter_map(|(field, member)| Tag::of(field, member, errors))
            .collect();
        let stored_name = names?.give(&variant.ident, attribute.name.as_ref());
        Some(Self {
            ident: &variant.ident,
            stored_name: errors.keep(stored_name)?,
            schema_version,
            is_summary: attribute.summary.is_some(),
            upcasters,
            fields: &variant.fields,
            tags,
        })
    }
}
