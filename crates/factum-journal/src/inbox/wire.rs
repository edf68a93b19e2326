//! The encoding of orders and answers: numbers as in the log, everything else with its length
//! first.

use bytes::{BufMut, Bytes, BytesMut};
use factum_kernel::{Position, Revision, StreamId, StreamVersion, Timestamp};

use crate::number::{self, take_bytes, take_len};

/// The first bytes of a file that this version of the program reads. The checksum follows.
const MAGIC: &[u8; 8] = b"FCTMIB02";

/// A value in an order or an answer.
pub(crate) trait Wire: Sized {
    /// Appends the value.
    fn put(&self, out: &mut BytesMut);

    /// Takes the value off the front; `None` if the bytes don't encode one.
    fn take(bytes: &mut &[u8]) -> Option<Self>;
}

/// The bytes of a file that holds a value.
pub(crate) fn seal(value: &impl Wire) -> BytesMut {
    let mut out = BytesMut::from(&MAGIC[..]);
    out.put_u32_le(0);
    value.put(&mut out);
    let crc = crc32c::crc32c(&out[12..]);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The value in a file; `None` if the file is damaged, or of another version of the program.
pub(crate) fn unseal<T: Wire>(mut bytes: &[u8]) -> Option<T> {
    let magic = take_bytes(&mut bytes, MAGIC.len())?;
    let crc = number::u32_at(take_bytes(&mut bytes, 4)?, 0);
    let is_whole = magic == MAGIC && crc == crc32c::crc32c(bytes);
    let value = is_whole.then(|| T::take(&mut bytes))??;
    bytes.is_empty().then_some(value)
}

/// The encoded outcome of an order. Only the order's sender knows its type.
#[derive(Debug)]
pub(crate) struct Outcome(BytesMut);

impl Outcome {
    /// Encodes an outcome.
    pub(crate) fn of(result: &impl Wire) -> Self {
        let mut out = BytesMut::new();
        result.put(&mut out);
        Self(out)
    }
}

impl Wire for Outcome {
    fn put(&self, out: &mut BytesMut) {
        out.put_slice(&self.0);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self(std::mem::take(bytes).into()))
    }
}

impl Wire for u64 {
    fn put(&self, out: &mut BytesMut) {
        number::put(out, *self);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        number::take(bytes)
    }
}

impl Wire for u8 {
    fn put(&self, out: &mut BytesMut) {
        out.put_u8(*self);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        take_bytes(bytes, 1).map(|byte| byte[0])
    }
}

impl Wire for bool {
    fn put(&self, out: &mut BytesMut) {
        u8::from(*self).put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        match u8::take(bytes)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Wire for () {
    fn put(&self, _: &mut BytesMut) {}

    fn take(_: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

impl Wire for Bytes {
    fn put(&self, out: &mut BytesMut) {
        put_bytes(out, self);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let len = take_len(bytes)?;
        take_bytes(bytes, len).map(Self::copy_from_slice)
    }
}

/// Appends bytes, encoded like [`Bytes`].
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    number::put(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Takes text off the front, which is encoded as bytes.
pub(crate) fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let len = take_len(bytes)?;
    std::str::from_utf8(take_bytes(bytes, len)?).ok()
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut BytesMut) {
        self.is_some().put(out);
        self.iter().for_each(|value| value.put(out));
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        if bool::take(bytes)? { T::take(bytes).map(Some) } else { Some(None) }
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut BytesMut) {
        put_all(out, self);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let len = take_len(bytes)?;
        // Each value takes at least a byte, so a false length reserves no memory.
        let mut all = Self::new();
        while all.len() < len && !bytes.is_empty() {
            all.push(T::take(bytes)?);
        }
        (all.len() == len).then_some(all)
    }
}

/// Appends values, encoded like a `Vec` of them.
pub(crate) fn put_all<T: Wire>(out: &mut BytesMut, values: &[T]) {
    number::put(out, values.len() as u64);
    values.iter().for_each(|value| value.put(out));
}

impl<T: Wire, E: Wire> Wire for Result<T, E> {
    fn put(&self, out: &mut BytesMut) {
        self.is_ok().put(out);
        match self {
            Ok(value) => value.put(out),
            Err(error) => error.put(out),
        }
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        match bool::take(bytes)? {
            true => T::take(bytes).map(Ok),
            false => E::take(bytes).map(Err),
        }
    }
}

impl Wire for StreamId {
    fn put(&self, out: &mut BytesMut) {
        put_bytes(out, self.as_str().as_bytes());
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        take_text(bytes)?.parse().ok()
    }
}

impl Wire for StreamVersion {
    fn put(&self, out: &mut BytesMut) {
        self.value().put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        number::take(bytes).map(Self::new)
    }
}

impl Wire for Position {
    fn put(&self, out: &mut BytesMut) {
        self.value().put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        number::take(bytes).map(Self::new)
    }
}

impl Wire for Revision {
    fn put(&self, out: &mut BytesMut) {
        self.value().put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        number::take(bytes).map(Self::new)
    }
}

impl Wire for Timestamp {
    fn put(&self, out: &mut BytesMut) {
        self.as_micros().put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        number::take(bytes).map(Self::from_micros)
    }
}
