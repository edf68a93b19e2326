//! Names of streams: `category-key`.

use std::{fmt, str::FromStr, sync::Arc};

use crate::kind::ErrorKind;

/// The longest category, in bytes.
pub const CATEGORY_BYTES_MAX: usize = 64;
/// The longest key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 512;

/// The error for a name that no stream or category can have, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid stream id: {reason}: id={text:?}")]
pub struct InvalidStreamId {
    text: String,
    reason: &'static str,
}

impl InvalidStreamId {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

fn invalid(text: impl fmt::Display, reason: &'static str) -> InvalidStreamId {
    // The text goes into log lines, so a long one, which may be hostile, is cut.
    InvalidStreamId { text: text.to_string().chars().take(80).collect(), reason }
}

/// The name that all streams of one kind share: letters, digits, `_` and `.`, at most
/// [`CATEGORY_BYTES_MAX`] bytes.
///
/// A leading `$` marks system categories, which belong to the framework; only [`Category::system`]
/// and [`Category::parse`] make those.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Category(Arc<str>);

impl Category {
    /// A category of the application.
    ///
    /// # Errors
    /// The name is empty or too long, or holds a character that is not allowed.
    pub fn new(name: &str) -> Result<Self, InvalidStreamId> {
        check_category(name).map(|()| Self(name.into()))
    }

    /// A system category: `$` and the name. Readers leave it out unless they ask for it.
    ///
    /// # Errors
    /// The same as [`Category::new`].
    pub fn system(name: &str) -> Result<Self, InvalidStreamId> {
        check_category(name)?;
        Ok(Self(format!("${name}").into()))
    }

    /// Parses a category that was stored or typed. A leading `$` is allowed.
    ///
    /// # Errors
    /// The same as [`Category::new`].
    pub fn parse(text: &str) -> Result<Self, InvalidStreamId> {
        check_category(text.strip_prefix('$').unwrap_or(text)).map(|()| Self(text.into()))
    }

    /// The name, with the `$` of a system category.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for a system category.
    pub fn is_system(&self) -> bool {
        self.0.starts_with('$')
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a stream: a category, a `-`, and a key. Always valid, cheap to clone.
///
/// A key holds anything printable, `-` included, up to [`KEY_BYTES_MAX`] bytes. Ids are compared
/// byte by byte; nothing is normalised.
///
/// ```
/// use factum_kernel::StreamId;
///
/// let stream = StreamId::new("account", "ada-1815")?;
/// assert_eq!(stream.as_str(), "account-ada-1815");
/// assert_eq!((stream.category(), stream.key()), ("account", "ada-1815"));
/// # Ok::<(), factum_kernel::InvalidStreamId>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    text: Arc<str>,
    category_len: u16,
}

impl StreamId {
    /// A stream of the application.
    ///
    /// # Errors
    /// The category or the key is empty or too long, or holds a character that is not allowed.
    pub fn new(category: &str, key: &str) -> Result<Self, InvalidStreamId> {
        check_category(category)?;
        Self::join(category, key)
    }

    /// The stream of a key in a valid category.
    ///
    /// # Errors
    /// The key is empty or too long, or holds a control character.
    pub fn of(category: &Category, key: &str) -> Result<Self, InvalidStreamId> {
        Self::join(category.as_str(), key)
    }

    fn join(category: &str, key: &str) -> Result<Self, InvalidStreamId> {
        check_key(key)?;
        let category_len = u16::try_from(category.len()).expect("a category is at most 65 bytes");
        Ok(Self { text: format!("{category}-{key}").into(), category_len })
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part before the first `-`.
    pub fn category(&self) -> &str {
        &self.text[..usize::from(self.category_len)]
    }

    /// The part after the first `-`.
    pub fn key(&self) -> &str {
        &self.text[usize::from(self.category_len) + 1..]
    }

    /// The id, borrowed.
    pub fn as_ref(&self) -> StreamRef<'_> {
        StreamRef { text: &self.text, category_len: self.category_len }
    }

    /// True for a stream in a system category.
    pub fn is_system(&self) -> bool {
        self.text.starts_with('$')
    }
}

impl FromStr for StreamId {
    type Err = InvalidStreamId;

    /// Parses an id that was stored or typed. A system category is allowed.
    fn from_str(text: &str) -> Result<Self, InvalidStreamId> {
        let (category, key) =
            text.split_once('-').ok_or_else(|| invalid(text, "no '-' between category and key"))?;
        Self::of(&Category::parse(category)?, key)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A stream id that is borrowed, for instance from a recorded event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamRef<'a> {
    text: &'a str,
    category_len: u16,
}

impl<'a> StreamRef<'a> {
    pub(crate) fn from_stored(text: &'a str, category_len: u16) -> Self {
        Self { text, category_len }
    }

    /// The whole id.
    pub fn as_str(self) -> &'a str {
        self.text
    }

    /// The part before the first `-`.
    pub fn category(self) -> &'a str {
        &self.text[..usize::from(self.category_len)]
    }

    /// The part after the first `-`: the aggregate's key.
    pub fn key(self) -> &'a str {
        &self.text[usize::from(self.category_len) + 1..]
    }

    /// True for a stream in a system category.
    pub fn is_system(self) -> bool {
        self.text.starts_with('$')
    }

    /// The id, owned.
    pub fn to_stream_id(self) -> StreamId {
        StreamId { text: self.text.into(), category_len: self.category_len }
    }
}

impl fmt::Display for StreamRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl PartialEq<StreamId> for StreamRef<'_> {
    fn eq(&self, other: &StreamId) -> bool {
        self.text == other.as_str()
    }
}

/// True if the name may be a category of the application, as far as a constant function can tell:
/// it accepts every character outside ASCII, also those that [`Category::new`] refuses.
pub const fn may_be_category(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let byte = bytes[i];
        if !(byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.' || byte >= 0x80) {
            return false;
        }
        i += 1;
    }
    !bytes.is_empty() && bytes.len() <= CATEGORY_BYTES_MAX
}

/// The name of a category, for [`Aggregate::CATEGORY`](crate::Aggregate::CATEGORY). An invalid name
/// is an error in `cargo check` and in the editor, at the line where it is written. Without the
/// macro, only `cargo build` finds it, and reports it at another place.
///
/// ```
/// const CATEGORY: &str = factum_kernel::category!("account");
/// assert_eq!(CATEGORY, "account");
/// ```
///
/// ```compile_fail
/// const CATEGORY: &str = factum_kernel::category!("savings account");
/// ```
#[macro_export]
macro_rules! category {
    ($name:expr) => {{
        const CATEGORY: &str = $name;
        // This needs an item of its own: a constant of a trait is evaluated only when it is used.
        const _: () = assert!(
            $crate::__private::may_be_category(CATEGORY),
            "a category has 1 to 64 letters, digits, '_' and '.'"
        );
        CATEGORY
    }};
}

fn check_category(name: &str) -> Result<(), InvalidStreamId> {
    let allowed = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    if name.is_empty() {
        return Err(invalid(name, "the category is empty"));
    }
    if name.len() > CATEGORY_BYTES_MAX {
        return Err(invalid(name, "the category is longer than 64 bytes"));
    }
    if !name.chars().all(allowed) {
        return Err(invalid(name, "a category holds only letters, digits, '_' and '.'"));
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), InvalidStreamId> {
    if key.is_empty() {
        return Err(invalid(key, "the key is empty"));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(invalid(key, "the key is longer than 512 bytes"));
    }
    if key.chars().any(char::is_control) {
        return Err(invalid(key, "the key holds a control character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_hold_what_is_printable_and_the_first_dash_ends_the_category() {
        let id: StreamId = "account-zoë-北-🐢".parse().unwrap();
        assert_eq!((id.category(), id.key()), ("account", "zoë-北-🐢"));
        assert_eq!(id, StreamId::new("account", "zoë-北-🐢").unwrap());
        assert_eq!(id.as_ref().to_stream_id(), id);
    }

    #[test]
    fn bad_names_are_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<StreamId>().unwrap_err().to_string();
        assert!(refused("account").contains("no '-'"));
        assert!(refused("-ada").contains("category is empty"));
        assert!(refused("account-").contains("key is empty"));
        assert!(refused("a b-c").contains("only letters"));
        assert!(refused("account-a\nb").contains("control character"));
        assert!(refused(&format!("account-{}", "x".repeat(513))).contains("512"));
        assert!(StreamId::new("account", &"x".repeat(512)).is_ok());
    }

    #[test]
    fn the_compiler_refuses_most_bad_categories() {
        for good in ["account", "bank.account_2", "konto.prüfung"] {
            assert!(may_be_category(good) && Category::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a-b", "$queue", &"x".repeat(65)] {
            assert!(!may_be_category(bad) && Category::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_system_makes_system_streams() {
        assert!(StreamId::new("$queue", "1").is_err());
        let id = StreamId::of(&Category::system("queue").unwrap(), "1").unwrap();
        assert!(id.is_system());
        assert_eq!("$queue-1".parse::<StreamId>().unwrap(), id);
    }
}
