//! The methods about the stored identity of an event.

use proc_macro2::TokenStream;
use quote::quote;

use super::{EventEnum, variant::Variant};

/// `types`, `event_type`, `owns` and `is_summary`.
pub(super) fn methods(event: &EventEnum<'_>) -> TokenStream {
    let EventEnum { crate_path, variants, old_names, .. } = event;
    let idents: Vec<_> = variants.iter().map(|variant| variant.ident).collect();
    let types =
        |variant: &Variant<'_>| event_type(event, &variant.stored_name, variant.schema_version);
    let event_types: Vec<_> = variants.iter().map(types).collect();
    let old_types = old_names.iter().map(|old| event_type(event, &old.name, old.current()));
    let present = variants.iter().map(|variant| &variant.stored_name);
    let owned = present.chain(old_names.iter().map(|old| &old.name));
    let is_summary = variants.iter().map(|variant| variant.is_summary);
    quote! {
        fn types() -> ::std::vec::Vec<#crate_path::__private::EventType> {
            ::std::vec![#(#event_types,)* #(#old_types),*]
        }

        fn event_type(&self) -> #crate_path::__private::EventType {
            match self {
                #(Self::#idents { .. } => #event_types,)*
            }
        }

        fn owns(__name: &str) -> bool {
            match __name {
                #(#owned)|* => true,
                _ => false,
            }
        }

        fn is_summary(&self) -> bool {
            match self {
                #(Self::#idents { .. } => #is_summary,)*
            }
        }
    }
}

fn event_type(event: &EventEnum<'_>, stored_name: &str, schema_version: u32) -> TokenStream {
    let crate_path = &event.crate_path;
    quote! {
        #crate_path::__private::EventType {
            name: const { #crate_path::__private::EventName::from_static(#stored_name) },
            schema_version: #schema_version,
            rust_type: ::core::any::type_name::<Self>(),
        }
    }
}
