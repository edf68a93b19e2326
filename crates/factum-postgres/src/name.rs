//! Names that are pasted into statements. Each is checked when it is made, so its uses need no
//! check.

use std::{fmt, str::FromStr};

use factum_kernel::StoreError;

use crate::options::SCHEMA_DEFAULT;

/// The most bytes of a schema's name. The channel's name adds a prefix to it.
const SCHEMA_BYTES_MAX: usize = 48;
/// The most bytes of a name in PostgreSQL; the server truncates longer names.
const NAME_BYTES_MAX: usize = 63;

/// The name of a schema that holds a log: 1 to 48 characters of `a-z`, `0-9` and `_`. It begins
/// neither with a digit nor with `pg_`.
///
/// ```
/// use factum_postgres::SchemaName;
///
/// assert_eq!(SchemaName::new("ledger")?.as_str(), "ledger");
/// assert_eq!(SchemaName::default().as_str(), "factum");
/// assert!(SchemaName::new("ledger; DROP TABLE accounts").is_err());
/// # Ok::<(), factum_kernel::StoreError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SchemaName(Box<str>);

impl SchemaName {
    /// Makes a name of this text.
    ///
    /// # Errors
    /// `Invalid` for any other text.
    pub fn new(text: &str) -> Result<Self, StoreError> {
        let is_allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
        if !(1..=SCHEMA_BYTES_MAX).contains(&text.len())
            || !text.bytes().all(is_allowed)
            || text.starts_with(|c: char| c.is_ascii_digit())
            || text.starts_with("pg_")
        {
            return Err(StoreError::invalid(format!(
                "a schema's name has 1 to {SCHEMA_BYTES_MAX} of a-z, 0-9 and _, begins with no \
                 digit and not with pg_: schema={}",
                text.escape_debug()
            )));
        }
        Ok(Self(text.into()))
    }

    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The quoted form for statements; quoted, even a keyword is a name.
    pub(crate) fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

impl Default for SchemaName {
    /// [`SCHEMA_DEFAULT`].
    fn default() -> Self {
        Self(SCHEMA_DEFAULT.into())
    }
}

impl FromStr for SchemaName {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        Self::new(text)
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a role of the server: any text of 1 to 63 bytes that PostgreSQL takes as the name of
/// a single role. Statements quote it, so upper case and quotes are kept.
///
/// ```
/// use factum_postgres::RoleName;
///
/// assert_eq!(RoleName::new("Ledger app")?.as_str(), "Ledger app");
/// assert!(RoleName::new("public").is_err(), "it stands for all roles");
/// # Ok::<(), factum_kernel::StoreError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoleName(Box<str>);

impl RoleName {
    /// Makes a name of this text.
    ///
    /// # Errors
    /// `Invalid` for a text of another length or with a NUL, and for `public` and `none`.
    /// PostgreSQL takes these two, quoted or not, for all roles and for no role.
    pub fn new(text: &str) -> Result<Self, StoreError> {
        if !(1..=NAME_BYTES_MAX).contains(&text.len()) || text.contains('\0') {
            return Err(StoreError::invalid(format!(
                "a role's name has 1 to {NAME_BYTES_MAX} bytes, none of them NUL: role={}",
                text.escape_debug()
            )));
        }
        if ["public", "none"].contains(&text) {
            return Err(StoreError::invalid(format!(
                "this is not a role but PostgreSQL's word for all or none, name a role: role={text}"
            )));
        }
        Ok(Self(text.into()))
    }

    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The quoted form for statements.
    pub(crate) fn quoted(&self) -> String {
        format!("\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl FromStr for RoleName {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        Self::new(text)
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_has_a_plain_name_or_none() {
        for text in ["a", "_", "ledger_2", "select", &"a".repeat(48)] {
            assert_eq!(SchemaName::new(text).unwrap().quoted(), format!("\"{text}\""));
        }
        let long = "a".repeat(49);
        let wide = "ä".repeat(10);
        for text in [
            "", "1a", "pg_a", "A", "Ledger", "a b", "a-b", "a.b", "a\"", "a'", "a;", "a\\", "a\0",
            "a\n", "$$", "@schema@", "ſ", "а", &long, &wide,
        ] {
            let error = SchemaName::new(text).unwrap_err().to_string();
            assert!(error.ends_with(&format!("schema={}", text.escape_debug())), "{error}");
            assert!(text.parse::<SchemaName>().is_err());
        }
    }

    #[test]
    fn a_role_is_quoted_and_never_all_roles() {
        for (text, quoted) in [
            ("app", "\"app\""),
            ("App", "\"App\""),
            ("a\"; DROP TABLE events; --", "\"a\"\"; DROP TABLE events; --\""),
            ("a'b\\", "\"a'b\\\""),
            ("jürgen", "\"jürgen\""),
            ("Public", "\"Public\""),
        ] {
            assert_eq!(RoleName::new(text).unwrap().quoted(), quoted);
        }
        for text in ["", "public", "none", "a\0b", &"a".repeat(64), &"ä".repeat(32)] {
            assert!(RoleName::new(text).is_err(), "{text}");
            assert!(text.parse::<RoleName>().is_err(), "{text}");
        }
    }
}
