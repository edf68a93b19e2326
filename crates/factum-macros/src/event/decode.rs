//! `Event::decode`: by stored name, then by schema version.

use proc_macro2::TokenStream;
use quote::quote;

use super::{
    EventEnum,
    upcast::{OldName, Upcasters},
    variant::Variant,
};
use crate::wire::{binding, owned};

/// `Event::decode`.
pub(super) fn method(event: &EventEnum<'_>) -> TokenStream {
    let present = event.variants.iter().map(|variant| present_arm(event, variant));
    let old = event.old_names.iter().map(|old| old_arm(event, old));
    let arms = quote!(#(#present)* #(#old)*);
    let crate_path = &event.crate_path;
    quote! {
        fn decode(
            __event: #crate_path::__private::EncodedEvent<'_>,
            __sink: &mut dyn ::core::ops::FnMut(Self),
        ) -> ::core::result::Result<(), #crate_path::__private::DecodeError> {
            match __event.name() {
                #arms
                _ => ::core::result::Result::Err(
                    __event.error(#crate_path::__private::DecodeReason::UnknownType),
                ),
            }
        }
    }
}

fn present_arm(event: &EventEnum<'_>, variant: &Variant<'_>) -> TokenStream {
    let EventEnum { ident: enum_ident, codec, .. } = event;
    let Variant { ident, stored_name, schema_version, upcasters, fields, .. } = variant;
    let owned = owned(fields, stored_name, enum_ident);
    let upcast = upcast(event, *schema_version, upcasters);
    let members: Vec<_> = fields.members().collect();
    let values: Vec<_> = (0..members.len()).map(binding).collect();
    quote! {
        #stored_name => match __event.schema_version() {
            #schema_version => {
                #owned
                let __Owned { #(#members: #values),* } = __event.fields::<#codec, __Owned>()?;
                __sink(Self::#ident { #(#members: #values),* });
                ::core::result::Result::Ok(())
            }
            _ => #upcast,
        },
    }
}

fn old_arm(event: &EventEnum<'_>, old: &OldName) -> TokenStream {
    let upcast = upcast(event, old.current(), &old.upcasters);
    let name = &old.name;
    quote!(#name => #upcast,)
}

fn upcast(event: &EventEnum<'_>, current: u32, upcasters: &Upcasters) -> TokenStream {
    let EventEnum { crate_path, codec, .. } = event;
    let table = upcasters.table();
    quote!(#crate_path::__private::upcast_event::<#codec, Self>(&__event, #current, #table, __sink))
}
