//! The wire form of fields: those of the user's, with their serde attributes, in a struct or a
//! variant of our own.

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote};
use syn::{Attribute, Field, Fields};

/// The name by which a field is bound in a pattern; no constant of the user's is called so.
pub(crate) fn binding(index: usize) -> Ident {
    format_ident!("__field_{index}")
}

/// The struct `__Owned`, which is deserialised from the fields of what is stored under a name.
pub(crate) fn owned(fields: &Fields, stored_name: &str, ident: &Ident) -> TokenStream {
    owned_with(fields, stored_name, ident, &TokenStream::new())
}

/// `__Owned`, with further attributes.
fn owned_with(
    fields: &Fields,
    stored_name: &str,
    ident: &Ident,
    attributes: &TokenStream,
) -> TokenStream {
    let expecting = format!("the fields of {stored_name}");
    let wire = wire_fields(fields, ident);
    let end = matches!(fields, Fields::Unnamed(f) if !f.unnamed.is_empty()).then(|| quote!(;));
    quote! {
        #[derive(__serde::Deserialize)]
        #[serde(crate = "__serde", expecting = #expecting #attributes)]
        struct __Owned #wire #end
    }
}

/// The struct `__Owned` of a command, and the code that reads it from `__fields` into `__read`.
/// Named fields, or none, are read from a map that has no other fields. `renames` is the
/// `rename_all` of the command.
pub(crate) fn owned_command(
    fields: &Fields,
    stored_name: &str,
    ident: &Ident,
    renames: Option<&TokenStream>,
) -> TokenStream {
    if matches!(fields, Fields::Unnamed(fields) if !fields.unnamed.is_empty()) {
        let owned = owned(fields, stored_name, ident);
        return quote! {
            #owned
            let __read = <__C as __private::Codec>::decode::<__Owned>(__fields);
        };
    }
    let expecting = format!("the fields of {stored_name}");
    // serde has no `deny_unknown_fields` beside a flattened field, which takes the others.
    let strict = (!fields.iter().any(is_flattened)).then(|| quote!(, deny_unknown_fields));
    let renames = renames.map(|renames| quote!(, #renames));
    let owned = owned_with(fields, stored_name, ident, &quote!(#strict #renames));
    quote! {
        #owned

        impl __private::Fields for __Owned {
            const EXPECTING: &'static str = #expecting;
        }
        let __read = __private::read_fields::<__C, __Owned>(__fields);
    }
}

fn is_flattened(field: &Field) -> bool {
    let flatten = |token| matches!(token, TokenTree::Ident(word) if word == "flatten");
    let serde = field.attrs.iter().filter(|attribute| is_serde(attribute));
    let mut lists = serde.filter_map(|attribute| attribute.meta.require_list().ok());
    lists.any(|list| list.tokens.clone().into_iter().any(flatten))
}

/// The fields with their serde attributes and without all others; braces if there are none.
pub(crate) fn wire_fields(fields: &Fields, enum_ident: &Ident) -> TokenStream {
    let wire = fields.iter().map(|field| wire_field(field, enum_ident));
    match fields {
        Fields::Unnamed(fields) if !fields.unnamed.is_empty() => quote!((#(#wire),*)),
        _ => quote!({ #(#wire),* }),
    }
}

fn wire_field(field: &Field, enum_ident: &Ident) -> TokenStream {
    let serde = field.attrs.iter().filter(|attribute| is_serde(attribute));
    let name = field.ident.as_ref().map(|name| quote!(#name:));
    let field_type = named_self(field.ty.to_token_stream(), enum_ident);
    quote!(#(#serde)* #name #field_type)
}

pub(crate) fn is_serde(attribute: &Attribute) -> bool {
    attribute.path().is_ident("serde")
}

/// A type that means the same outside of the user's enum: `Self` by its name.
fn named_self(tokens: TokenStream, ident: &Ident) -> TokenStream {
    let named = |token| match token {
        TokenTree::Ident(word) if word == "Self" => {
            let mut ident = ident.clone();
            ident.set_span(word.span());
            TokenTree::Ident(ident)
        }
        TokenTree::Group(group) => {
            let mut inner = Group::new(group.delimiter(), named_self(group.stream(), ident));
            inner.set_span(group.span());
            TokenTree::Group(inner)
        }
        other => other,
    };
    tokens.into_iter().map(named).collect()
}
