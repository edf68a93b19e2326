//! `derive(Command)`: a stored name for each command, the way back from it, and the schema version.

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::{Attribute, Data, DataEnum, DeriveInput, Fields, LitStr, Path, Result};

use crate::{
    attribute::{
        Place, SchemaVersion, crate_path, crate_path_or_default, each_key, key, schema_version,
        set, text, unknown,
    },
    constant,
    error::{Errors, Misuse},
    name::{self, Names},
    serde_attribute::{On, check_command, check_command_fields},
    wire::{binding, owned_command},
};

const ENUM: usize = 0;
const STRUCT: usize = 1;
const VARIANT: usize = 2;

const PLACES: &[Place] = &[
    Place { name: "the enum", keys: &["prefix", "schema_version", "crate"] },
    Place { name: "the struct", keys: &["prefix", "name", "schema_version", "crate"] },
    Place { name: "a variant", keys: &["name"] },
];

/// `#[command(..)]`, on the type or on a variant.
#[derive(Default)]
struct CommandAttribute {
    crate_path: Option<Path>,
    prefix: Option<LitStr>,
    name: Option<LitStr>,
    schema_version: Option<SchemaVersion>,
}

impl CommandAttribute {
    fn parse(attributes: &[Attribute], place: usize, errors: &mut Errors) -> Self {
        let mut found = Self::default();
        each_key(attributes, "command", errors, |meta| {
            let key = key(meta);
            if !PLACES[place].keys.contains(&key.as_str()) {
                return Err(unknown(meta, PLACES, place));
            }
            match key.as_str() {
                "crate" => set(&mut found.crate_path, meta, crate_path),
                "prefix" => set(&mut found.prefix, meta, text),
                "name" => set(&mut found.name, meta, text),
                _ => set(&mut found.schema_version, meta, schema_version),
            }
        });
        found
    }
}

/// The code that `derive(Command)` generates for this input.
pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let mut errors = Errors::default();
    if !input.generics.params.is_empty() {
        errors.push(Misuse::Generic("Command").at(&input.generics));
    }
    let place = if matches!(input.data, Data::Enum(_)) { ENUM } else { STRUCT };
    let attribute = CommandAttribute::parse(&input.attrs, place, &mut errors);
    let on = if place == ENUM { On::Enum } else { On::Struct };
    let renames = check_command(&input.attrs, on, &mut errors);
    let named = match &input.data {
        Data::Enum(data) => enum_names(input, data, &attribute, renames, &mut errors),
        Data::Struct(data) => {
            check_command_fields(&data.fields, &mut errors);
            let name = errors.keep(struct_name(input, &attribute));
            let path = quote!(Self);
            let fields = &data.fields;
            name.map(|stored| Named { path, stored, fields, renames }).into_iter().collect()
        }
        Data::Union(_) => {
            errors.push(Misuse::CommandOnUnion.at(&input.ident));
            Vec::new()
        }
    };
    errors.finish()?;
    let ident = &input.ident;
    let crate_path = crate_path_or_default(attribute.crate_path);
    let schema_version = attribute.schema_version.map_or(1, |version| version.number);
    let stored = named.iter().map(|named| &named.stored);
    let names = named.iter().map(|Named { path, stored, .. }| quote!(#path { .. } => #stored,));
    let reads = named.iter().map(|named| named.read(ident));
    Ok(constant(&quote! {
        use #crate_path::__private::{self, serde as __serde};

        #[automatically_derived]
        impl #crate_path::Command for #ident {
            const SCHEMA_VERSION: u32 = #schema_version;
            const NAMES: &'static [&'static str] = &[#(#stored),*];

            fn name(&self) -> &'static str {
                match self { #(#names)* }
            }

            fn from_fields<__C: #crate_path::__private::Codec>(
                __name: &str,
                __fields: &[u8],
            ) -> ::core::option::Option<
                ::core::result::Result<Self, #crate_path::__private::CodecError>,
            > {
                match __name {
                    #(#reads)*
                    _ => ::core::option::Option::None,
                }
            }
        }
    }))
}

/// A command that has a name: a variant, or the whole struct.
struct Named<'a> {
    /// `Self::Open`, or `Self`.
    path: TokenStream,
    stored: String,
    fields: &'a Fields,
    /// The `rename_all` of its fields.
    renames: Option<TokenStream>,
}

impl Named<'_> {
    /// The arm that reads it from its fields.
    fn read(&self, ident: &Ident) -> TokenStream {
        let Self { path, stored, fields, renames } = self;
        let owned = owned_command(fields, stored, ident, renames.as_ref());
        let members: Vec<_> = fields.members().collect();
        let values: Vec<_> = (0..members.len()).map(binding).collect();
        quote! {
            #stored => {
                #owned
                ::core::option::Option::Some(__read.map(|__read| {
                    let __Owned { #(#members: #values),* } = __read;
                    #path { #(#members: #values),* }
                }))
            }
        }
    }
}

/// The commands of an enum.
fn enum_names<'a>(
    input: &DeriveInput,
    data: &'a DataEnum,
    attribute: &CommandAttribute,
    renames: Option<TokenStream>,
    errors: &mut Errors,
) -> Vec<Named<'a>> {
    if data.variants.is_empty() {
        errors.push(Misuse::Empty("Command").at(&input.ident));
    }
    let names = Names::new("command", "Command", &input.ident, attribute.prefix.as_ref());
    let mut names = errors.keep(names);
    let mut named = Vec::new();
    for variant in &data.variants {
        let CommandAttribute { name, .. } =
            CommandAttribute::parse(&variant.attrs, VARIANT, errors);
        // As in serde, that of the variant goes before that of the enum.
        let renames =
            check_command(&variant.attrs, On::Variant, errors).or_else(|| renames.clone());
        check_command_fields(&variant.fields, errors);
        let ident = &variant.ident;
        if let Some(names) = &mut names
            && let Some(stored) = errors.keep(names.give(ident, name.as_ref()))
        {
            let path = quote!(Self::#ident);
            named.push(Named { path, stored, fields: &variant.fields, renames });
        }
    }
    named
}

/// The name of a struct's command. The struct's own name takes the place of a variant's, and a
/// prefix comes before it only if one is set.
fn struct_name(input: &DeriveInput, attribute: &CommandAttribute) -> Result<String> {
    let name = match &attribute.name {
        Some(name) => name::part(name)?,
        None => name::stem(&input.ident, "Command"),
    };
    if name.is_empty() {
        return Err(Misuse::Nameless("#[command(name = \"..\")]").at(&input.ident));
    }
    let stored = match &attribute.prefix {
        Some(prefix) => format!("{}.{name}", name::part(prefix)?),
        None => name,
    };
    if !name::is_valid(&stored) {
        return Err(Misuse::InvalidName.at(&input.ident));
    }
    Ok(stored)
}
