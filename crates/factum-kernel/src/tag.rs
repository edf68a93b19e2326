//! Labels on events, for queries.

use std::{fmt, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::kind::ErrorKind;

/// The longest tag, `name:value`, in bytes of UTF-8.
pub const TAG_BYTES_MAX: usize = 256;
/// The most tags on one event.
pub const TAGS_MAX: usize = 64;

/// The error for a tag that is not allowed, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTag {
    /// The name is empty, or holds a `:` or a control character.
    #[error("invalid tag name, use letters, digits, '-' and '_': name={0:?}")]
    Name(String),
    /// The value is empty or holds a control character.
    #[error("invalid tag value, it is empty or holds a control character: name={0}")]
    Value(String),
    /// Name and value together exceed [`TAG_BYTES_MAX`].
    #[error("tag is longer than 256 bytes, tag a hash of the value instead: name={0}")]
    TooLong(String),
    /// A guard, or the query of a model, names a tag plainly where an event of the same decision
    /// has it hashed, or the other way round. The query would not find that event.
    #[error(
        "a query and an event of one decision differ in whether the tag is hashed, use \
         Matching::hashed_tag where the field is #[event(tag, hashed)] and Matching::tag where it \
         is not: name={0}"
    )]
    Mixed(String),
    /// A hashed tag is needed, and no [`TagKey`] is set.
    #[error("a hashed tag needs a tag key, set one with `with_tag_key`: name={0}")]
    NoKey(String),
}

impl InvalidTag {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// A label `name:value` on an event, by which queries and append conditions find it.
///
/// Tags are never encrypted. For a value that must stay secret, such as an e-mail address, use a
/// hashed tag: [`TagKey::hashed`].
///
/// ```
/// use factum_kernel::Tag;
///
/// assert_eq!(Tag::new("course", "rust-101")?.as_str(), "course:rust-101");
/// assert!(Tag::new("a:b", "c").is_err());
/// # Ok::<(), factum_kernel::InvalidTag>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The tag `name:value`.
    ///
    /// # Errors
    /// See [`InvalidTag`].
    pub fn new(name: &str, value: impl fmt::Display) -> Result<Self, InvalidTag> {
        // A colon in the name would silently become part of the value.
        if name.contains(':') {
            return Err(InvalidTag::Name(cut(name)));
        }
        Self::parse(&format!("{name}:{value}"))
    }

    /// Parses a tag that was stored or typed; the name ends at the first `:`.
    ///
    /// # Errors
    /// See [`InvalidTag`].
    pub fn parse(text: &str) -> Result<Self, InvalidTag> {
        let (name, value) = text.split_once(':').ok_or_else(|| InvalidTag::Name(cut(text)))?;
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(InvalidTag::Name(cut(name)));
        }
        if value.is_empty() || value.chars().any(char::is_control) {
            return Err(InvalidTag::Value(cut(name)));
        }
        if text.len() > TAG_BYTES_MAX {
            return Err(InvalidTag::TooLong(cut(name)));
        }
        Ok(Self(text.into()))
    }

    /// The whole tag, `name:value`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first `:`.
    pub fn name(&self) -> &str {
        self.0.split_once(':').map_or("", |(name, _)| name)
    }

    /// True if the value looks like one that [`TagKey::hashed`] makes.
    pub fn is_hashed(&self) -> bool {
        let digits = self.value().strip_prefix('#').unwrap_or_default();
        digits.len() == 32 && digits.chars().all(|c| c.is_ascii_hexdigit())
    }

    /// The part after the first `:`.
    pub fn value(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, value)| value)
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The secret of hashed tags: 32 bytes that must stay the same as long as the log is used. It hides
/// values in tags, not in the payload of events.
#[derive(Clone, PartialEq, Eq)]
pub struct TagKey(Arc<[u8; 32]>);

impl TagKey {
    /// The key with these bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(Arc::new(secret))
    }

    /// The tag `name:#hash`. The hash is HMAC-SHA-256 (RFC 2104) over name and value, cut to 128
    /// bits: equal values give equal tags, and without the key the value can't be guessed. Only the
    /// tag hides the value: a field of the event that holds it is stored as it is.
    ///
    /// # Errors
    /// [`Tag::new`] refuses the name.
    pub fn hashed(&self, name: &str, value: impl fmt::Display) -> Result<Tag, InvalidTag> {
        let hash = self.hash(name, value.to_string().as_bytes());
        Tag::new(name, format_args!("#{hash:032x}"))
    }

    /// The keyed hash of bytes, for comparisons: without the key the bytes can't be guessed.
    pub(crate) fn seal(&self, purpose: &str, bytes: &[u8]) -> u64 {
        (self.hash(purpose, bytes) >> 64) as u64
    }

    fn hash(&self, name: &str, value: &[u8]) -> u128 {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0[..]).expect("HMAC takes any key");
        mac.update(name.as_bytes());
        // No name holds this byte, so the input can be split into (name, value) in one way only.
        mac.update(b":");
        mac.update(value);
        let hash = mac.finalize().into_bytes();
        u128::from_be_bytes(hash[..16].try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Debug for TagKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TagKey(..)")
    }
}

/// Collects the tags of one event while it is encoded.
#[derive(Debug)]
pub struct TagWriter<'a> {
    key: Option<&'a TagKey>,
    tags: Vec<Tag>,
}

impl<'a> TagWriter<'a> {
    /// A writer that hashes with this key.
    pub fn new(key: Option<&'a TagKey>) -> Self {
        Self { key, tags: Vec::new() }
    }

    /// Adds the tag `name:value`.
    ///
    /// # Errors
    /// See [`InvalidTag`].
    pub fn plain(&mut self, name: &str, value: impl fmt::Display) -> Result<(), InvalidTag> {
        self.tags.push(Tag::new(name, value)?);
        Ok(())
    }

    /// Adds the tag with the keyed hash of a value.
    ///
    /// # Errors
    /// The name is not allowed, or there is no key.
    pub fn hashed(&mut self, name: &str, value: impl fmt::Display) -> Result<(), InvalidTag> {
        let key = self.key.ok_or_else(|| InvalidTag::NoKey(cut(name)))?;
        self.tags.push(key.hashed(name, value)?);
        Ok(())
    }

    /// The tags in the order in which they were added, without duplicates.
    pub fn finish(mut self) -> Vec<Tag> {
        let mut seen = std::collections::HashSet::new();
        self.tags.retain(|tag| seen.insert(tag.clone()));
        self.tags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hashed_tag_hides_the_value_and_depends_on_the_key() {
        let tag = |key: u8, name, value| TagKey::new([key; 32]).hashed(name, value).unwrap();
        let ada = tag(1, "email", "ada@example.org");
        assert!(ada.as_str().starts_with("email:#") && !ada.as_str().contains("ada@"));
        assert_eq!(ada, tag(1, "email", "ada@example.org"));
        assert_ne!(ada, tag(2, "email", "ada@example.org"));
        assert_ne!(ada, tag(1, "mail", "ada@example.org"));
    }

    #[test]
    fn bad_tags_are_refused() {
        assert_eq!(Tag::new("", "x"), Err(InvalidTag::Name(String::new())));
        assert_eq!(Tag::new("a:b", "x"), Err(InvalidTag::Name("a:b".into())));
        assert_eq!(Tag::new("a", ""), Err(InvalidTag::Value("a".into())));
        assert_eq!(Tag::new("a", "x\0"), Err(InvalidTag::Value("a".into())));
        assert_eq!(Tag::new("a", "x".repeat(255)), Err(InvalidTag::TooLong("a".into())));
        assert!(Tag::new("a", "x".repeat(254)).is_ok());
        assert_eq!(
            TagWriter::new(None).hashed("email", "x"),
            Err(InvalidTag::NoKey("email".into()))
        );
    }
}
