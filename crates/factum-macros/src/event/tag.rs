//! Tags: `#[event(tag)]` on a field.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Field, LitStr, Member, Path, PathArguments, Result, Type, spanned::Spanned};

use super::{EventEnum, attribute::FieldAttribute};
use crate::{
    error::{Errors, Misuse},
    wire::binding,
};

/// The most bytes of a tag's name: the kernel's limit of a whole tag, without the colon and a value
/// of one byte.
const TAG_NAME_BYTES_MAX: usize = 254;

/// A field that tags its event.
pub(super) struct Tag<'a> {
    name: String,
    hashed: bool,
    member: Member,
    field_type: &'a Type,
}

impl<'a> Tag<'a> {
    /// The tag of a field, if it has one.
    pub(super) fn of(field: &'a Field, member: Member, errors: &mut Errors) -> Option<Self> {
        let FieldAttribute { tag, hashed } = FieldAttribute::parse(&field.attrs, errors);
        let Some((key, name)) = tag else {
            if let Some(hashed) = hashed {
                errors.push(Misuse::HashedWithoutTag.at(hashed));
            }
            return None;
        };
        let name = errors.keep(tag_name(&key, name.as_ref(), &member))?;
        Some(Self { name, hashed: hashed.is_some(), member, field_type: &field.ty })
    }

    /// The statement that writes the tag of the field bound to `value`.
    fn write(&self, crate_path: &Path, value: &Ident) -> TokenStream {
        let Self { name, field_type, .. } = self;
        let method = if self.hashed { quote!(hashed) } else { quote!(plain) };
        // If the value has no `Display`, the error is at the field's type. The names are still
        // resolved at the derive, because the type may come from a macro that does not see them.
        let span = field_type.span().resolved_at(Span::call_site());
        let value = &Ident::new(&value.to_string(), span);
        let write =
            quote_spanned!(span=> #crate_path::__private::TagWriter::#method(__out, #name, #value));
        if holds_items(field_type) {
            let items = quote!(::core::iter::IntoIterator::into_iter(#value));
            quote!(for #value in #items { #write?; })
        } else {
            quote!(#write?;)
        }
    }
}

fn tag_name(key: &Path, name: Option<&LitStr>, member: &Member) -> Result<String> {
    let text = match (name, member) {
        (Some(name), _) => name.value(),
        (None, Member::Named(ident)) => syn::ext::IdentExt::unraw(ident).to_string(),
        (None, Member::Unnamed(_)) => return Err(Misuse::TagUnnamed.at(key)),
    };
    let fits = (1..=TAG_NAME_BYTES_MAX).contains(&text.len());
    if fits && !text.chars().any(|c| c == ':' || c.is_control()) {
        return Ok(text);
    }
    Err(match name {
        Some(name) => Misuse::InvalidTagName.at(name),
        None => Misuse::InvalidTagName.at(member),
    })
}

/// Returns whether the type is spelled `Option<..>`, `Vec<..>` or `BTreeSet<..>`.
fn holds_items(field_type: &Type) -> bool {
    match field_type {
        // A type that came through a `macro_rules` fragment is inside an invisible group.
        Type::Group(group) => holds_items(&group.elem),
        Type::Paren(paren) => holds_items(&paren.elem),
        Type::Path(path) => path.path.segments.last().is_some_and(|last| {
            matches!(last.arguments, PathArguments::AngleBracketed(_))
                && ["Option", "Vec", "BTreeSet"].iter().any(|name| last.ident == name)
        }),
        _ => false,
    }
}

/// `Event::tags`.
pub(super) fn method(event: &EventEnum<'_>) -> TokenStream {
    let crate_path = &event.crate_path;
    let arms = event.variants.iter().map(|variant| {
        let ident = variant.ident;
        let members = variant.tags.iter().map(|tag| &tag.member);
        let values: Vec<Ident> = (0..variant.tags.len()).map(binding).collect();
        let writes =
            variant.tags.iter().zip(&values).map(|(tag, value)| tag.write(crate_path, value));
        quote!(Self::#ident { #(#members: #values,)* .. } => { #(#writes)* })
    });
    quote! {
        fn tags(
            &self,
            __out: &mut #crate_path::__private::TagWriter<'_>,
        ) -> ::core::result::Result<(), #crate_path::__private::InvalidTag> {
            match self {
                #(#arms)*
            }
            ::core::result::Result::Ok(())
        }
    }
}
