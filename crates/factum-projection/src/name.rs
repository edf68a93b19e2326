//! The names of consumers.

use std::{fmt, str::FromStr};

use crate::build::Build;

/// The most bytes of a consumer's name.
pub const CONSUMER_NAME_BYTES_MAX: usize = 128;

/// The name of a consumer: what its checkpoint is kept under. A noun phrase in kebab case reads
/// best.
///
/// ```
/// use factum_projection::ConsumerName;
///
/// assert!(ConsumerName::new("account-balances").is_ok());
/// assert!(ConsumerName::new("a/b").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerName(Box<str>);

/// A text that is no name of a consumer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a consumer's name has 1 to {CONSUMER_NAME_BYTES_MAX} letters, digits, '-', '_' or '.': \
     name={0:?}"
)]
pub struct InvalidConsumerName(pub String);

impl ConsumerName {
    /// The name with this text: 1 to 128 ASCII letters, digits, `-`, `_` or `.`.
    ///
    /// # Errors
    /// Another text.
    pub fn new(text: &str) -> Result<Self, InvalidConsumerName> {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_length_fine = (1..=CONSUMER_NAME_BYTES_MAX).contains(&text.len());
        if is_length_fine && text.bytes().all(is_fine) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidConsumerName(text.into()))
        }
    }

    /// The name of one version of a projection.
    pub(crate) fn versioned(&self, version: u32) -> Self {
        Self(format!("{}@{version}", self.0).into())
    }

    /// The name of one build of a projection.
    pub(crate) fn built(&self, build: Build) -> Self {
        Self(format!("{}@{build}", self.0).into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ConsumerName {
    type Err = InvalidConsumerName;

    /// A name as it is shown, with the version of a projection: `balances`, `balances@2`.
    fn from_str(text: &str) -> Result<Self, InvalidConsumerName> {
        match text.split_once('@') {
            None => Self::new(text),
            Some((name, version)) => match version.parse() {
                Ok(number) if format!("{number}") == version => {
                    Ok(Self::new(name)?.versioned(number))
                }
                _ => Err(InvalidConsumerName(text.into())),
            },
        }
    }
}

impl fmt::Display for ConsumerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
