//! Facts about an event that are not in its payload: who, why, and when in the world.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Buf, BufMut, BytesMut};
use uuid::Uuid;

use crate::time::Timestamp;

/// The longest user, tenant, origin, and key or value of `extra`, in bytes.
pub const METADATA_TEXT_BYTES_MAX: usize = 4_096;

/// Facts about an event that are not in its payload. Cheap to clone.
///
/// ```
/// use factum_kernel::Metadata;
///
/// let metadata = Metadata::new().with_user("ada").with("channel", "web");
/// assert_eq!(metadata.user.as_deref(), Some("ada"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// The conversation: the same id for everything that follows from one request.
    pub correlation_id: Option<Uuid>,
    /// The message that directly caused this one.
    pub causation_id: Option<Uuid>,
    /// The user on whose behalf the event was written.
    pub user: Option<Arc<str>>,
    /// The tenant that the event belongs to.
    pub tenant: Option<Arc<str>>,
    /// The system or node that wrote the event. A read can ask for the events of one origin.
    pub origin: Option<Arc<str>>,
    /// The time at which the event happened in the world, if it differs from the recorded time.
    pub occurred_at: Option<Timestamp>,
    /// Further facts, as keys and values.
    pub extra: BTreeMap<Arc<str>, Arc<str>>,
}

impl Metadata {
    /// Empty metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the correlation id, which names the conversation.
    #[must_use]
    pub fn with_correlation_id(mut self, id: Uuid) -> Self {
        self.correlation_id = Some(id);
        self
    }

    /// Sets the causation id, which names the direct cause.
    #[must_use]
    pub fn with_causation_id(mut self, id: Uuid) -> Self {
        self.causation_id = Some(id);
        self
    }

    /// Sets the user.
    #[must_use]
    pub fn with_user(mut self, user: &str) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Sets the tenant.
    #[must_use]
    pub fn with_tenant(mut self, tenant: &str) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Sets the origin.
    #[must_use]
    pub fn with_origin(mut self, origin: &str) -> Self {
        self.origin = Some(origin.into());
        self
    }

    /// Sets the time at which the event happened in the world.
    #[must_use]
    pub fn with_occurred_at(mut self, time: Timestamp) -> Self {
        self.occurred_at = Some(time);
        self
    }

    /// Sets an entry of `extra`.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.extra.insert(key.into(), value.into());
        self
    }

    fn texts(&self) -> impl Iterator<Item = &Arc<str>> {
        let named = [&self.user, &self.tenant, &self.origin].into_iter().flatten();
        named.chain(self.extra.iter().flat_map(|(key, value)| [key, value]))
    }

    /// True if every text is within [`METADATA_TEXT_BYTES_MAX`] and `extra` has at most 255
    /// entries.
    pub(crate) fn is_within_limits(&self) -> bool {
        self.extra.len() <= usize::from(u8::MAX)
            && self.texts().all(|text| text.len() <= METADATA_TEXT_BYTES_MAX)
    }

    /// Appends the stored form; empty metadata append nothing.
    ///
    /// The form begins with a byte of flags. Each present field follows, in the order of the bits:
    /// correlation id (1) and causation id (2), 16 bytes each; user (4), tenant (8) and origin
    /// (16), each a `u16` length and UTF-8; occurred-at (32), `u64` microseconds; `extra` (64), a
    /// `u8` count and then the texts of each key and value. Numbers are little-endian.
    pub fn encode(&self, out: &mut BytesMut) {
        let flags = self.flags();
        if flags == 0 {
            return;
        }
        out.put_u8(flags);
        for id in [self.correlation_id, self.causation_id].into_iter().flatten() {
            out.put_slice(id.as_bytes());
        }
        for text in [&self.user, &self.tenant, &self.origin].into_iter().flatten() {
            put_text(out, text);
        }
        if let Some(time) = self.occurred_at {
            out.put_u64_le(time.as_micros());
        }
        if !self.extra.is_empty() {
            out.put_u8(u8::try_from(self.extra.len()).expect("checked by the batch's limits"));
            for (key, value) in &self.extra {
                put_text(out, key);
                put_text(out, value);
            }
        }
    }

    fn flags(&self) -> u8 {
        let present = [
            self.correlation_id.is_some(),
            self.causation_id.is_some(),
            self.user.is_some(),
            self.tenant.is_some(),
            self.origin.is_some(),
            self.occurred_at.is_some(),
            !self.extra.is_empty(),
        ];
        present.iter().enumerate().map(|(bit, there)| u8::from(*there) << bit).sum()
    }

    /// The length of the stored form, in bytes.
    pub fn encoded_len(&self) -> usize {
        if self.flags() == 0 {
            return 0;
        }
        let ids = [self.correlation_id, self.causation_id].into_iter().flatten().count() * 16;
        let texts: usize = self.texts().map(|text| 2 + text.len()).sum();
        let time = self.occurred_at.map_or(0, |_| 8);
        1 + ids + texts + time + usize::from(!self.extra.is_empty())
    }

    /// True if the bytes are a valid stored form. Allocates nothing.
    pub(crate) fn is_valid(mut bytes: &[u8]) -> bool {
        let Some((flags, rest)) = bytes.split_first() else { return true };
        bytes = rest;
        let has = |bit: u8| flags & (1 << bit) != 0;
        let ids = usize::from(has(0)) + usize::from(has(1));
        let texts = usize::from(has(2)) + usize::from(has(3)) + usize::from(has(4));
        let mut skip_all = || {
            skip(&mut bytes, 16 * ids)?;
            (0..texts).try_for_each(|_| skip_text(&mut bytes))?;
            skip(&mut bytes, if has(5) { 8 } else { 0 })?;
            let entries = if has(6) { bytes.try_get_u8().ok()? } else { 0 };
            (0..2 * u16::from(entries)).try_for_each(|_| skip_text(&mut bytes))
        };
        skip_all().is_some() && bytes.is_empty() && *flags < 128
    }

    /// Decodes the stored form; `None` if the bytes are not valid.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let flags = bytes.try_get_u8().ok()?;
        let has = |bit: u8| flags & (1 << bit) != 0;
        let mut metadata = Self::default();
        if has(0) {
            metadata.correlation_id = Some(take_uuid(&mut bytes)?);
        }
        if has(1) {
            metadata.causation_id = Some(take_uuid(&mut bytes)?);
        }
        if has(2) {
            metadata.user = Some(take_text(&mut bytes)?);
        }
        if has(3) {
            metadata.tenant = Some(take_text(&mut bytes)?);
        }
        if has(4) {
            metadata.origin = Some(take_text(&mut bytes)?);
        }
        if has(5) {
            metadata.occurred_at = Some(Timestamp::from_micros(bytes.try_get_u64_le().ok()?));
        }
        if has(6) {
            for _ in 0..bytes.try_get_u8().ok()? {
                let key = take_text(&mut bytes)?;
                metadata.extra.insert(key, take_text(&mut bytes)?);
            }
        }
        (bytes.is_empty() && flags < 128).then_some(metadata)
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u16_le(u16::try_from(text.len()).expect("checked by the batch's limits"));
    out.put_slice(text.as_bytes());
}

fn skip(bytes: &mut &[u8], len: usize) -> Option<()> {
    *bytes = bytes.split_at_checked(len)?.1;
    Some(())
}

fn skip_text(bytes: &mut &[u8]) -> Option<()> {
    let len = usize::from(bytes.try_get_u16_le().ok()?);
    let (text, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    std::str::from_utf8(text).ok().map(drop)
}

fn take_text(bytes: &mut &[u8]) -> Option<Arc<str>> {
    let len = usize::from(bytes.try_get_u16_le().ok()?);
    let (text, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    std::str::from_utf8(text).ok().map(Into::into)
}

fn take_uuid(bytes: &mut &[u8]) -> Option<Uuid> {
    let (id, rest) = bytes.split_at_checked(16)?;
    *bytes = rest;
    Uuid::from_slice(id).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Metadata {
        Metadata::new()
            .with_correlation_id(Uuid::from_u128(1))
            .with_causation_id(Uuid::from_u128(2))
            .with_user("ada")
            .with_tenant("")
            .with_origin("node-1")
            .with_occurred_at(Timestamp::from_micros(5))
            .with("k", "v")
            .with("ключ", "значение")
    }

    #[test]
    fn the_stored_form_holds_everything_and_nothing_costs_nothing() {
        for metadata in [Metadata::new(), Metadata::new().with("a", "b"), full()] {
            let mut out = BytesMut::new();
            metadata.encode(&mut out);
            assert_eq!(out.len(), metadata.encoded_len());
            assert_eq!(Metadata::decode(&out), Some(metadata));
            assert!(Metadata::is_valid(&out));
        }
        assert_eq!(Metadata::new().encoded_len(), 0);
    }

    #[test]
    fn a_damaged_form_is_refused_at_every_length() {
        let mut out = BytesMut::new();
        full().encode(&mut out);
        for len in 1..out.len() {
            assert_eq!(Metadata::decode(&out[..len]), None, "cut at {len}");
            assert!(!Metadata::is_valid(&out[..len]), "cut at {len}");
        }
        out.put_u8(0);
        assert_eq!(Metadata::decode(&out), None, "a byte too many");
        assert!(!Metadata::is_valid(&out), "a byte too many");
        assert!(!Metadata::is_valid(&[128]), "an unknown flag");
    }
}
