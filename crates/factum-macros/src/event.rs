//! `derive(Event)`: from the enum to its implementation.

mod attribute;
mod decode;
mod flatten;
mod identity;
mod payload;
mod tag;
mod upcast;
mod variant;

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::{Data, DeriveInput, Path, Result, parse_quote};

use self::{attribute::EnumAttribute, upcast::OldName, variant::Variant};
use crate::{
    attribute::crate_path_or_default,
    constant,
    error::{Errors, Misuse},
    name::Names,
    serde_attribute::{On, check_event},
};

/// An enum of events, checked.
struct EventEnum<'a> {
    ident: &'a Ident,
    crate_path: Path,
    codec: Path,
    variants: Vec<Variant<'a>>,
    old_names: Vec<OldName>,
}

/// The code that `derive(Event)` generates for this input.
pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Misuse::EventNeedsEnum.at(&input.ident));
    };
    let mut errors = Errors::default();
    if !input.generics.params.is_empty() {
        errors.push(Misuse::Generic("Event").at(&input.generics));
    }
    if data.variants.is_empty() {
        errors.push(Misuse::Empty("Event").at(&input.ident));
    }
    let attribute = EnumAttribute::parse(&input.attrs, &mut errors);
    let on = if attribute.flatten.is_some() { On::Flattened } else { On::Enum };
    check_event(&input.attrs, on, &mut errors);
    if attribute.flatten.is_some() {
        return flatten::expand(&input.ident, data, attribute, errors);
    }
    let event = EventEnum::parse(&input.ident, data, attribute, &mut errors);
    errors.finish()?;
    Ok(implementation(&event))
}

impl<'a> EventEnum<'a> {
    fn parse(
        ident: &'a Ident,
        data: &'a syn::DataEnum,
        attribute: EnumAttribute,
        errors: &mut Errors,
    ) -> Self {
        let crate_path = crate_path_or_default(attribute.crate_path);
        let names = Names::new("event", "Event", ident, attribute.prefix.as_ref());
        let mut names = errors.keep(names);
        let variants = (data.variants.iter())
            .filter_map(|variant| Variant::parse(variant, names.as_mut(), errors))
            .collect();
        let old_names = match &names {
            Some(names) => OldName::group(attribute.upcasts, names, errors),
            None => Vec::new(),
        };
        let codec = attribute.codec.unwrap_or_else(|| parse_quote!(#crate_path::__private::Cbor));
        Self { ident, crate_path, codec, variants, old_names }
    }
}

fn implementation(event: &EventEnum<'_>) -> TokenStream {
    let EventEnum { ident, crate_path, .. } = event;
    let borrowed_payload = payload::borrowed(event);
    let identity = identity::methods(event);
    let tags = tag::method(event);
    let fields = payload::fields_method();
    let encode = payload::encode_method(event);
    let decode = decode::method(event);
    constant(&quote! {
        use #crate_path::__private::serde as __serde;

        #borrowed_payload

        #[automatically_derived]
        impl #crate_path::Event for #ident {
            #identity
            #tags
            #fields
            #encode
            #decode
        }
    })
}
