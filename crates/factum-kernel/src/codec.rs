//! Encoding of typed values as bytes, and decoding.

mod field;
mod json;

use bytes::{BufMut, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::{event::Content, kind::ErrorKind};

pub use field::{Fields, read_fields};
pub use json::Json;

/// The size of the buffer that a text or a byte string is decoded into, in bytes. A type that
/// borrows its text can decode at most this length.
const SCRATCH: usize = 4_096;
const SCRATCH_SMALL: usize = 512;

/// A self-describing value, which upcasters work on.
pub use ciborium::Value;

/// The error for bytes or a value that a codec can't read or write, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(String);

impl CodecError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    /// The error with this reason.
    pub fn new(reason: impl std::fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

/// The encoding of an enum's events. `#[event(codec = ..)]` chooses it at compile time. A stored
/// event is decoded by the [`Content`] that was stored with it.
///
/// ```
/// use factum_kernel::{Cbor, Codec, Json};
///
/// let mut out = bytes::BytesMut::new();
/// Json::encode(&[1, 2], &mut out)?;
/// assert_eq!(&out[..], b"[1,2]");
/// assert_eq!(Cbor::decode::<u8>(&[7])?, 7);
/// # Ok::<(), factum_kernel::CodecError>(())
/// ```
pub trait Codec: Send + Sync + 'static {
    /// The content that is stored with the bytes: one of Factum's own, or a number from 256 on.
    const CONTENT: Content;

    /// Appends the encoded value.
    ///
    /// # Errors
    /// The format can't hold the value.
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> Result<(), CodecError>;

    /// Decodes a value. All bytes must be used.
    ///
    /// # Errors
    /// The bytes are not such a value.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError>;

    /// Reads bytes as the value that upcasters work on. It holds everything that `encode` writes.
    ///
    /// # Errors
    /// Bytes that hold no value.
    fn to_value(bytes: &[u8]) -> Result<Value, CodecError> {
        Self::decode(bytes)
    }

    /// Turns an upcast value into a typed one. The value is encoded and decoded, so that a field
    /// that no upcaster changes is decoded as it is without upcasters.
    ///
    /// # Errors
    /// The value has another shape.
    fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, CodecError> {
        let mut bytes = BytesMut::new();
        Self::encode(value, &mut bytes)?;
        Self::decode(&bytes)
    }
}

/// CBOR (RFC 8949), the default: compact and self-describing.
#[derive(Debug, Clone, Copy)]
pub struct Cbor;

impl Codec for Cbor {
    const CONTENT: Content = Content::Cbor;

    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> Result<(), CodecError> {
        ciborium::into_writer(value, out.writer()).map_err(|e| match e {
            ciborium::ser::Error::Value(reason) => CodecError(reason),
            ciborium::ser::Error::Io(e) => CodecError::new(e),
        })
    }

    fn decode<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<T, CodecError> {
        // A borrowed text must fit into the buffer, and no text is longer than the payload. Most
        // events are small, and zeroing a large buffer for each of them takes measurable time.
        let read = if bytes.len() <= SCRATCH_SMALL {
            ciborium::from_reader_with_buffer(&mut bytes, &mut [0; SCRATCH_SMALL])
        } else {
            ciborium::from_reader_with_buffer(&mut bytes, &mut [0; SCRATCH])
        };
        let value = read.map_err(|e| match e {
            ciborium::de::Error::Semantic(_, reason) => CodecError(reason),
            ciborium::de::Error::Syntax(at) => CodecError(format!("invalid CBOR at byte {at}")),
            ciborium::de::Error::Io(_) => CodecError::new("the bytes end too early"),
            ciborium::de::Error::RecursionLimitExceeded => CodecError::new("nested too deep"),
        })?;
        if bytes.is_empty() { Ok(value) } else { Err(CodecError::new("bytes are left over")) }
    }
}

#[cfg(test)]
mod tests;
