//! The names of consumers.

use std::{fmt, str::FromStr};

use factum_kernel::ErrorKind;

/// The most bytes of a consumer's name.
pub const CONSUMER_NAME_BYTES_MAX: usize = 128;

/// The name of a consumer, under which its progress is stored. Prefer a noun phrase in kebab case.
///
/// ```
/// use factum_consumer::ConsumerName;
///
/// assert!(ConsumerName::new("account-balances").is_ok());
/// assert!(ConsumerName::new("a/b").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerName(Box<str>);

/// The error for a text that is no consumer's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a consumer's name has 1 to {CONSUMER_NAME_BYTES_MAX} letters, digits, '-', '_' or '.': \
     name={0:?}"
)]
pub struct InvalidConsumerName(pub String);

impl InvalidConsumerName {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl ConsumerName {
    /// The name with this text: 1 to 128 ASCII letters, digits, `-`, `_` or `.`.
    ///
    /// # Errors
    /// [`InvalidConsumerName`] for any other text.
    pub fn new(text: &str) -> Result<Self, InvalidConsumerName> {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_length_fine = (1..=CONSUMER_NAME_BYTES_MAX).contains(&text.len());
        if is_length_fine && text.bytes().all(is_fine) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidConsumerName(text.into()))
        }
    }

    /// The name of one version of a projection: `balances@2`, or `balances@2.1`.
    pub fn versioned(&self, version: impl fmt::Display) -> Self {
        Self(format!("{}@{version}", self.0).into())
    }

    /// The name of one of N partitions, under which its progress is stored: `mails#3`. If N is 1,
    /// the consumer's own name.
    pub fn part(&self, at: usize, partitions: usize) -> Self {
        match partitions {
            1 => self.clone(),
            _ => Self(format!("{}#{at}", self.0).into()),
        }
    }

    /// The name of the whole consumer: `mails` for `mails#3`, and for `mails` itself.
    pub fn whole(&self) -> Self {
        Self(self.0.split('#').next().unwrap_or_default().into())
    }

    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ConsumerName {
    type Err = InvalidConsumerName;

    /// Parses a name as `Display` writes it, with the build of a projection and the number of a
    /// partition: `balances`, `balances@2`, `balances@2.1`, `mails#3`.
    fn from_str(text: &str) -> Result<Self, InvalidConsumerName> {
        let invalid = || InvalidConsumerName(text.into());
        let (rest, partition) = split(text, '#');
        let (name, build) = split(rest, '@');
        let (version, generation) = build.map_or((None, None), |build| {
            let (version, generation) = split(build, '.');
            (Some(version), generation)
        });
        let mut numbers = [partition, version, generation].into_iter().flatten();
        if !numbers.all(is_number) || Self::new(name).is_err() {
            return Err(invalid());
        }
        Ok(Self(text.into()))
    }
}

/// The version in the name of a projection: `name@2`, `name@2.1`.
pub fn version_of(name: &str, longer: &str) -> Option<u32> {
    longer.strip_prefix(name)?.strip_prefix('@')?.split('.').next()?.parse().ok()
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(text, rest)| (text, Some(rest)))
}

/// True for a number as `Display` writes it.
fn is_number(text: &str) -> bool {
    text.parse::<u32>().is_ok_and(|number| number.to_string() == text)
}

impl fmt::Display for ConsumerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_shown() {
        for text in ["mails", "balances@2", "balances@2.1", "mails#3", "balances@2.1#63"] {
            assert_eq!(text.parse::<ConsumerName>().map(|it| it.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "a/b", "@2", "a@", "a@x", "a@02", "a#", "a#-1", "a#1@2", "a@1.", "a@1#x"] {
            assert!(text.parse::<ConsumerName>().is_err(), "{text}");
        }
        let part = "balances@2.1#63".parse::<ConsumerName>().unwrap();
        assert_eq!(part.whole().as_str(), "balances@2.1");
        assert_eq!(part.whole().part(63, 64), part);
        assert_eq!(part.whole().part(0, 1), part.whole());
    }

    #[test]
    fn a_longer_name_is_of_the_same_projection_by_its_version() {
        for (longer, version) in [("mails@2", 2), ("mails@12", 12), ("mails@3.1", 3)] {
            assert_eq!(version_of("mails", longer), Some(version), "{longer}");
        }
        for other in ["mails-2", "mail", "mailserver@1", "mails", "mails@x"] {
            assert_eq!(version_of("mails", other), None, "{other}");
        }
    }
}
