//! Names and texts that are inserted into statements.

use std::{fmt, str::FromStr};

use super::POSTGRES_TARGET_SCHEMA_DEFAULT;

/// The most bytes of a name in PostgreSQL; the server cuts off longer names.
pub(crate) const NAME_BYTES_MAX: usize = 63;

/// The name of a schema for the progress of projections: any text of 1 to 63 bytes, without NUL,
/// not beginning with `pg_`. Statements quote it, so upper case and quotes are kept.
///
/// ```
/// use factum_projection::TargetSchema;
///
/// assert_eq!("Read models".parse::<TargetSchema>()?.as_str(), "Read models");
/// assert!(TargetSchema::new("").is_err());
/// # Ok::<(), factum_projection::InvalidTargetSchema>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TargetSchema(Box<str>);

/// The error for a text that can't be the name of a schema in PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a schema's name has 1 to {NAME_BYTES_MAX} bytes, none of them NUL, and does not begin with \
     pg_: schema={0:?}"
)]
pub struct InvalidTargetSchema(pub String);

impl TargetSchema {
    /// The name with this text.
    ///
    /// # Errors
    /// A text that is empty, too long, contains a NUL or begins with `pg_`.
    pub fn new(text: &str) -> Result<Self, InvalidTargetSchema> {
        let is_length_fine = (1..=NAME_BYTES_MAX).contains(&text.len());
        if is_length_fine && !text.contains('\0') && !text.starts_with("pg_") {
            Ok(Self(text.into()))
        } else {
            Err(InvalidTargetSchema(text.into()))
        }
    }

    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The quoted name, for use in a statement.
    pub(crate) fn quoted(&self) -> String {
        quoted(&self.0)
    }
}

impl Default for TargetSchema {
    /// [`POSTGRES_TARGET_SCHEMA_DEFAULT`].
    fn default() -> Self {
        Self(POSTGRES_TARGET_SCHEMA_DEFAULT.into())
    }
}

impl FromStr for TargetSchema {
    type Err = InvalidTargetSchema;

    fn from_str(text: &str) -> Result<Self, InvalidTargetSchema> {
        Self::new(text)
    }
}

impl fmt::Display for TargetSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Quotes a name for use in a statement.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a text for use in a statement, with any setting of `standard_conforming_strings`.
pub(crate) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_name_is_one_that_the_server_keeps_unchanged() {
        let longest = "a".repeat(63);
        for text in ["public", "Read models", "a\"b", "jürgen", "a;'\\", &longest] {
            assert_eq!(TargetSchema::new(text).unwrap().to_string(), text);
        }
        for text in ["", "a\0b", "pg_models", &"a".repeat(64), &"ä".repeat(32)] {
            assert_eq!(TargetSchema::new(text), Err(InvalidTargetSchema(text.into())));
        }
    }

    #[test]
    fn a_text_ends_where_its_literal_ends() {
        assert_eq!(quoted("a\"; --"), "\"a\"\"; --\"");
        assert_eq!(literal("a'; --"), "E'a''; --'");
        assert_eq!(literal("a\\'; --"), "E'a\\\\''; --'");
    }
}
