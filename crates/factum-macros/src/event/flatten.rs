//! `#[event(flatten)]`: an enum of enums of events, whose methods call those of the inner enums.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::{Attribute, DataEnum, Fields, Path, Result, Type, Variant};

use super::attribute::EnumAttribute;
use crate::{
    attribute::{crate_path_or_default, each_key, key},
    constant,
    error::{Errors, Misuse},
    serde_attribute::{On, check_event},
};

/// The code that `derive(Event)` generates for such an enum.
pub(super) fn expand(
    ident: &Ident,
    data: &DataEnum,
    attribute: EnumAttribute,
    mut errors: Errors,
) -> Result<TokenStream> {
    for other in &attribute.others {
        errors.push(Misuse::BesideFlatten(&other.to_token_stream().to_string()).at(other));
    }
    let mut inner: Vec<(&Ident, &Type)> = Vec::new();
    for variant in &data.variants {
        if let Some(wrapped) = wrapped(variant, &mut errors) {
            let text = wrapped.to_token_stream().to_string();
            let same = |earlier: &Type| earlier.to_token_stream().to_string() == text;
            if let Some((first, _)) = inner.iter().find(|(_, earlier)| same(earlier)) {
                errors.push(Misuse::FlattenTwice(&first.to_string()).at(wrapped));
            }
            inner.push((&variant.ident, wrapped));
        }
    }
    errors.finish()?;
    let crate_path = crate_path_or_default(attribute.crate_path);
    Ok(implementation(ident, &crate_path, &inner))
}

/// The one type that a variant wraps.
fn wrapped<'a>(variant: &'a Variant, errors: &mut Errors) -> Option<&'a Type> {
    refuse_keys(&variant.attrs, errors);
    for field in &variant.fields {
        refuse_keys(&field.attrs, errors);
    }
    match &variant.fields {
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Some(&fields.unnamed[0].ty),
        _ => {
            let text = variant.ident.to_string();
            errors.push(Misuse::FlattenShape(&text).at(variant_shape(variant)));
            None
        }
    }
}

/// The variant without its attributes.
fn variant_shape(variant: &Variant) -> TokenStream {
    let Variant { ident, fields, .. } = variant;
    quote!(#ident #fields)
}

fn refuse_keys(attributes: &[Attribute], errors: &mut Errors) {
    check_event(attributes, On::Flattened, errors);
    each_key(attributes, "event", errors, |meta| {
        Err(Misuse::BesideFlatten(&key(meta)).at(&meta.path))
    });
}

fn implementation(ident: &Ident, crate_path: &Path, inner: &[(&Ident, &Type)]) -> TokenStream {
    let queries = queries(crate_path, inner);
    let coding = coding(crate_path, inner);
    constant(&quote! {
        use #crate_path::__private::serde as __serde;

        #[automatically_derived]
        impl #crate_path::Event for #ident {
            #queries
            #coding
        }
    })
}

/// The methods that take no event.
fn queries(crate_path: &Path, inner: &[(&Ident, &Type)]) -> TokenStream {
    let (idents, types): (Vec<_>, Vec<_>) = inner.iter().copied().unzip();
    quote! {
        fn types() -> ::std::vec::Vec<#crate_path::__private::EventType> {
            let mut __types = ::std::vec::Vec::new();
            #(__types.extend(<#types as #crate_path::Event>::types());)*
            __types
        }

        fn event_type(&self) -> #crate_path::__private::EventType {
            match self {
                #(Self::#idents(__inner) => <#types as #crate_path::Event>::event_type(__inner),)*
            }
        }

        fn owns(__name: &str) -> bool {
            #(<#types as #crate_path::Event>::owns(__name))||*
        }

        fn is_summary(&self) -> bool {
            match self {
                #(Self::#idents(__inner) => <#types as #crate_path::Event>::is_summary(__inner),)*
            }
        }
    }
}

/// `tags`, `fields`, `encode` and `decode`.
fn coding(crate_path: &Path, inner: &[(&Ident, &Type)]) -> TokenStream {
    let (idents, types): (Vec<_>, Vec<_>) = inner.iter().copied().unzip();
    quote! {
        fn tags(
            &self,
            __out: &mut #crate_path::__private::TagWriter<'_>,
        ) -> ::core::result::Result<(), #crate_path::__private::InvalidTag> {
            match self {
                #(Self::#idents(__inner) => <#types as #crate_path::Event>::tags(__inner, __out),)*
            }
        }

        fn fields<__S: __serde::Serializer>(
            &self,
            __serializer: __S,
        ) -> ::core::result::Result<__S::Ok, __S::Error> {
            match self {
                #(
                    Self::#idents(__inner) => {
                        <#types as #crate_path::Event>::fields(__inner, __serializer)
                    }
                )*
            }
        }

        fn encode(
            &self,
            __out: &mut #crate_path::__private::bytes::BytesMut,
        ) -> ::core::result::Result<
            #crate_path::__private::Content,
            #crate_path::__private::CodecError,
        > {
            match self {
                #(
                    Self::#idents(__inner) => {
                        <#types as #crate_path::Event>::encode(__inner, __out)
                    }
                )*
            }
        }

        fn decode(
            __event: #crate_path::__private::EncodedEvent<'_>,
            __sink: &mut dyn ::core::ops::FnMut(Self),
        ) -> ::core::result::Result<(), #crate_path::__private::DecodeError> {
            #(if <#types as #crate_path::Event>::owns(__event.name()) {
                return <#types as #crate_path::Event>::decode(
                    __event,
                    &mut |__inner| __sink(Self::#idents(__inner)),
                );
            })*
            ::core::result::Result::Err(
                __event.error(#crate_path::__private::DecodeReason::UnknownType),
            )
        }
    }
}
