//! Stored names: `<prefix>.<variant>`, each valid and unique.

use proc_macro2::Ident;
use syn::{LitStr, ext::IdentExt};

use crate::error::Misuse;

/// The most bytes of an event's name in the kernel; commands keep to it too.
const NAME_BYTES_MAX: usize = 256;

/// The stored names of one enum, collected one by one.
pub(crate) struct Names {
    derive: &'static str,
    prefix: String,
    /// The stored name and the variant.
    given: Vec<(String, String)>,
}

impl Names {
    /// Names with the prefix that was set, or with the type's own name without `suffix`.
    pub(crate) fn new(
        derive: &'static str,
        suffix: &str,
        ident: &Ident,
        prefix: Option<&LitStr>,
    ) -> syn::Result<Self> {
        let prefix = match prefix {
            Some(prefix) => part(prefix)?,
            None => stem(ident, suffix),
        };
        if prefix.is_empty() {
            return Err(Misuse::Nameless(&format!("#[{derive}(prefix = \"..\")]")).at(ident));
        }
        Ok(Self { derive, prefix, given: Vec::new() })
    }

    /// The stored name of a variant. Refuses a name that is already used.
    pub(crate) fn give(&mut self, variant: &Ident, name: Option<&LitStr>) -> syn::Result<String> {
        let short = match name {
            Some(name) => part(name)?,
            None => kebab(&variant.unraw().to_string()),
        };
        if short.is_empty() {
            let remedy = format!("#[{}(name = \"..\")]", self.derive);
            return Err(Misuse::Nameless(&remedy).at(variant));
        }
        let stored = format!("{}.{short}", self.prefix);
        let error = |misuse: Misuse<'_>| match name {
            Some(name) => misuse.at(name),
            None => misuse.at(variant),
        };
        if !is_valid(&stored) {
            return Err(error(Misuse::InvalidName));
        }
        if let Some(first) = self.variant_of(&stored) {
            return Err(error(Misuse::SameName { name: &stored, first, derive: self.derive }));
        }
        self.given.push((stored.clone(), variant.unraw().to_string()));
        Ok(stored)
    }

    /// The variant with this stored name.
    pub(crate) fn variant_of(&self, stored: &str) -> Option<&str> {
        self.given.iter().find(|(name, _)| name == stored).map(|(_, variant)| variant.as_str())
    }
}

/// A name, or a part of one, that the user wrote out.
pub(crate) fn part(literal: &LitStr) -> syn::Result<String> {
    let text = literal.value();
    if is_valid(&text) { Ok(text) } else { Err(Misuse::InvalidName.at(literal)) }
}

/// A type's name in kebab case, without the suffix for its kind of type.
pub(crate) fn stem(ident: &Ident, suffix: &str) -> String {
    let text = ident.unraw().to_string();
    kebab(text.strip_suffix(suffix).unwrap_or(&text))
}

/// Returns whether the name can be stored.
pub(crate) fn is_valid(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(|c| c.is_ascii_control())
}

/// `MoneyDeposited` as `money-deposited`. Consecutive capitals are one word (`HTTPDone`:
/// `http-done`); digits belong to the word before them (`Sha256Computed`: `sha256-computed`).
fn kebab(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut kebab = String::new();
    for (at, &c) in chars.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| chars[before]);
        let after = chars.get(at + 1);
        let starts_word = c.is_uppercase()
            && before.is_some_and(|before| {
                !before.is_uppercase() || after.is_some_and(|after| after.is_lowercase())
            });
        if (starts_word || c == '_') && !kebab.is_empty() && !kebab.ends_with('-') {
            kebab.push('-');
        }
        if c != '_' {
            kebab.extend(c.to_lowercase());
        }
    }
    kebab.truncate(kebab.trim_end_matches('-').len());
    kebab
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_kebab_case() {
        let check = |name, expected| assert_eq!(kebab(name), expected, "{name}");
        check("MoneyDeposited", "money-deposited");
        check("Opened", "opened");
        check("HTTPDone", "http-done");
        check("DoneByHTTP", "done-by-http");
        check("Sha256Computed", "sha256-computed");
        check("HTTP2Enabled", "http2-enabled");
        check("ABTestStarted", "ab-test-started");
        check("X", "x");
        check("snake_case", "snake-case");
        check("_Odd__Name_", "odd-name");
        check("ÄrgerGemeldet", "ärger-gemeldet");
        check("__", "");
    }

    #[test]
    fn the_kind_of_the_type_is_no_part_of_the_prefix() {
        let ident = |name| Ident::new(name, proc_macro2::Span::call_site());
        assert_eq!(stem(&ident("BankAccountEvent"), "Event"), "bank-account");
        assert_eq!(stem(&ident("Shop"), "Event"), "shop");
        assert_eq!(stem(&ident("EventLog"), "Event"), "event-log");
        assert_eq!(stem(&ident("Event"), "Event"), "");
    }
}
