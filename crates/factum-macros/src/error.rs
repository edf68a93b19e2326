//! Every misuse of a derive, each with its remedy, and the collector of the errors found.

use quote::ToTokens;

/// A misuse. Its text tells the user what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Misuse<'a> {
    #[error("derive(Event) needs an enum of events, make this type a variant of one")]
    EventNeedsEnum,

    #[error("derive(Command) needs an enum or a struct, a union can't be read back")]
    CommandOnUnion,

    #[error("derive({0}) needs at least one variant, add one or remove the derive")]
    Empty(&'static str),

    #[error(
        "derive({0}) takes no type parameters, lifetimes or constants, because what is stored has \
         one shape; use concrete, owned types in the fields"
    )]
    Generic(&'static str),

    /// Holds the attribute that sets a name.
    #[error("nothing of this name is left for the stored name, set one with {0}")]
    Nameless(&'a str),

    #[error(
        "a stored name has 1 to 256 bytes, prefix and dot included, and no control character; \
         shorten it, or fill it in"
    )]
    InvalidName,

    #[error(
        "`{first}` is already stored as `{name}`, give this one another name with \
         #[{derive}(name = \"..\")]"
    )]
    SameName { name: &'a str, first: &'a str, derive: &'static str },

    #[error("unknown key `{key}`; {place} takes {known}")]
    UnknownKey { key: &'a str, place: &'static str, known: &'a str },

    #[error("`{key}` belongs on {home}; {place} takes {known}")]
    MisplacedKey { key: &'a str, home: &'static str, place: &'static str, known: &'a str },

    #[error("`{0}` is given twice, remove one")]
    Twice(&'a str),

    /// Holds the key and the form of its value.
    #[error("write `{0}{1}`")]
    Form(&'a str, &'static str),

    #[error("`{0}` has no value, write it alone")]
    Value(&'a str),

    #[error("a schema version is a whole number from 1 to 4294967295, without a value it is 1")]
    SchemaVersion,

    #[error("an upcaster needs a start and a function: upcast(from = 1, with = path)")]
    UpcastIncomplete,

    #[error(
        "an upcaster on the enum is for a stored name that has no variant any more: \
         upcast(name = \"account.old-name\", from = 1, with = path); one for a present variant \
         goes on that variant"
    )]
    UpcastUnnamed,

    #[error(
        "an upcaster on a variant is for the variant's own name, remove `name`, or move it to the \
         enum if it is for an old one"
    )]
    UpcastNamed,

    #[error(
        "an upcaster starts below the variant's present schema version, which is {current}; lower \
         `from`, or set schema_version = {}",
        u64::from(*from) + 1
    )]
    UpcastTooHigh { from: u32, current: u32 },

    #[error("there is an upcaster from schema version {0} already, remove one")]
    UpcastTwice(u32),

    #[error(
        "`{name}` is the stored name of `{variant}`, put #[event(upcast(from = .., with = ..))] on \
         that variant"
    )]
    UpcastOfPresent { name: &'a str, variant: &'a str },

    #[error(
        "this field is all that the variant stores, so without it the event could not be read \
         back; remove the field, or give it a name"
    )]
    SkippedPayload,

    /// Holds serde's key and the remedy.
    #[error("derive({derive}) does not apply serde's `{key}` here, {remedy}")]
    SerdeIgnored { derive: &'static str, key: &'a str, remedy: &'static str },

    #[error(
        "a repeated command is compared by all its fields, and serde's `{key}` leaves this one \
         out: remove it, or keep the value apart from the command"
    )]
    CommandFieldLeftOut { key: &'a str },

    #[error("write `tag` or `tag = \"..\"`, and `, hashed` after it to tag with a keyed hash")]
    TagForm,

    #[error("an unnamed field gives its tag no name, set one with #[event(tag = \"..\")]")]
    TagUnnamed,

    #[error(
        "a tag's name has 1 to 254 bytes, no `:` and no control character; use letters, digits, \
         '-' and '_'"
    )]
    InvalidTagName,

    #[error("`hashed` says how a tag is stored, add the tag: #[event(tag, hashed)]")]
    HashedWithoutTag,

    #[error(
        "`{0}` can't be combined with `flatten`, whose events are those of the inner enums; \
         move it to the inner enum"
    )]
    BesideFlatten(&'a str),

    #[error(
        "with `flatten` each variant wraps one enum of events and nothing else: \
         `{0}({0}Event)`"
    )]
    FlattenShape(&'a str),

    #[error(
        "the events of this type already become `{0}`, so none would reach this variant; remove it"
    )]
    FlattenTwice(&'a str),
}

impl Misuse<'_> {
    /// The error at these tokens.
    pub(crate) fn at(&self, tokens: impl ToTokens) -> syn::Error {
        syn::Error::new_spanned(tokens, self)
    }
}

/// The errors found so far, so that one compilation shows them all.
#[derive(Default)]
pub(crate) struct Errors(Option<syn::Error>);

impl Errors {
    /// Adds an error.
    pub(crate) fn push(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// Returns the value, or adds the error and returns `None`.
    pub(crate) fn keep<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// All errors as one.
    pub(crate) fn finish(self) -> syn::Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}
