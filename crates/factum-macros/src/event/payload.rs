//! The wire form of the fields: the code that writes an event, and the code that reads it back.
//!
//! Writing uses one private enum with the user's fields and serde attributes, which serde
//! serialises *in place of* the user's enum (`remote`). So nothing is cloned, and functions named
//! in attributes see the exact types of the fields. The enum is `untagged`, so it writes only the
//! fields.

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::{Fields, FieldsUnnamed, Meta, Token, punctuated::Punctuated};

use super::{EventEnum, variant::Variant};
use crate::{
    error::{Errors, Misuse},
    wire::{is_serde, wire_fields},
};

/// Refuses to skip the one unnamed field that is the payload: serde would write nothing for it, and
/// could not read that back.
pub(super) fn check(fields: &Fields, errors: &mut Errors) {
    let Fields::Unnamed(FieldsUnnamed { unnamed, .. }) = fields else { return };
    for attribute in unnamed.iter().flat_map(|field| &field.attrs) {
        if unnamed.len() != 1 || !is_serde(attribute) {
            continue;
        }
        // serde reports what can't be parsed.
        let keys = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
        for key in keys.iter().flatten().map(Meta::path) {
            if ["skip", "skip_serializing", "skip_deserializing"].iter().any(|s| key.is_ident(s)) {
                errors.push(Misuse::SkippedPayload.at(key));
            }
        }
    }
}

/// `__Fields`, which borrows an event and serialises as its fields.
pub(super) fn borrowed(event: &EventEnum<'_>) -> TokenStream {
    let ident = event.ident;
    let remote = ident.to_string();
    let variants = event.variants.iter().map(|variant| wire_variant(variant, ident));
    let no_fields = event.variants.iter().any(has_no_fields).then(no_fields);
    quote! {
        #no_fields

        #[derive(__serde::Serialize)]
        #[serde(crate = "__serde", remote = #remote, untagged)]
        enum __Wire {
            #(#variants,)*
        }

        struct __Fields<'a>(&'a #ident);

        #[automatically_derived]
        impl __serde::Serialize for __Fields<'_> {
            fn serialize<__S: __serde::Serializer>(
                &self,
                __serializer: __S,
            ) -> ::core::result::Result<__S::Ok, __S::Error> {
                __Wire::serialize(self.0, __serializer)
            }
        }
    }
}

/// `Event::fields`.
pub(super) fn fields_method() -> TokenStream {
    quote! {
        fn fields<__S: __serde::Serializer>(
            &self,
            __serializer: __S,
        ) -> ::core::result::Result<__S::Ok, __S::Error> {
            __serde::Serialize::serialize(&__Fields(self), __serializer)
        }
    }
}

/// `Event::encode`.
pub(super) fn encode_method(event: &EventEnum<'_>) -> TokenStream {
    let EventEnum { crate_path, codec, .. } = event;
    quote! {
        fn encode(
            &self,
            __out: &mut #crate_path::__private::bytes::BytesMut,
        ) -> ::core::result::Result<
            #crate_path::__private::Content,
            #crate_path::__private::CodecError,
        > {
            <#codec as #crate_path::__private::Codec>::encode(&__Fields(self), __out)?;
            ::core::result::Result::Ok(<#codec as #crate_path::__private::Codec>::CONTENT)
        }
    }
}

/// A map without entries. serde would not write it for a variant without fields, but a later
/// version of the variant may have fields with a default.
fn no_fields() -> TokenStream {
    quote! {
        fn __no_fields<__S: __serde::Serializer>(
            __serializer: __S,
        ) -> ::core::result::Result<__S::Ok, __S::Error> {
            let __map = __serde::Serializer::serialize_map(
                __serializer,
                ::core::option::Option::Some(0),
            )?;
            __serde::ser::SerializeMap::end(__map)
        }
    }
}

fn has_no_fields(variant: &Variant<'_>) -> bool {
    variant.fields.is_empty()
}

fn wire_variant(variant: &Variant<'_>, enum_ident: &Ident) -> TokenStream {
    let ident = variant.ident;
    if has_no_fields(variant) {
        // The variant keeps its shape, for the patterns that serde generates.
        let fields = variant.fields;
        return quote!(#[serde(serialize_with = "__no_fields")] #ident #fields);
    }
    let fields = wire_fields(variant.fields, enum_ident);
    quote!(#ident #fields)
}
