//! Typed values to bytes and back.

mod json;

use bytes::{BufMut, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::{event::Content, kind::ErrorKind};

pub use json::Json;

/// What a text or a byte string is read into before it is lent; one that a type borrows is at most
/// so long.
const SCRATCH: usize = 4_096;
const SCRATCH_SMALL: usize = 512;

/// A value that describes itself: what upcasters work on.
pub use ciborium::Value;

/// Bytes or a value that a codec can't read or write, and its reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(String);

impl CodecError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    /// The error with this reason.
    pub fn new(reason: impl std::fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

/// How an enum of events is written. Static, chosen by `#[event(codec = ..)]`; what is read is
/// read by the [`Content`] that was stored with it.
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
    /// What is stored beside the bytes. One of our own, or a number from 256 on.
    const CONTENT: Content;

    /// Appends the bytes of a value.
    ///
    /// # Errors
    /// A value that the format can't hold.
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> Result<(), CodecError>;

    /// Reads a value; all bytes must be used.
    ///
    /// # Errors
    /// Bytes that are no such value.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError>;

    /// Reads bytes as the value that upcasters work on. It holds everything that `encode` writes.
    ///
    /// # Errors
    /// Bytes that hold no value.
    fn to_value(bytes: &[u8]) -> Result<Value, CodecError> {
        Self::decode(bytes)
    }

    /// Turns an upcast value into a typed one, by the bytes that it has in this codec: so what an
    /// upcaster leaves as it was is read as it is read without one.
    ///
    /// # Errors
    /// A value of another shape.
    fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, CodecError> {
        let mut bytes = BytesMut::new();
        Self::encode(value, &mut bytes)?;
        Self::decode(&bytes)
    }
}

/// CBOR (RFC 8949), the default: compact, and it describes itself.
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
        // A text that is lent has to fit in here, and none is longer than the whole. Most events
        // are small, and what is zeroed for each of them is seen in the time.
        let read = if bytes.len() <= SCRATCH_SMALL {
            ciborium::from_reader_with_buffer(&mut bytes, &mut [0; SCRATCH_SMALL])
        } else {
            ciborium::from_reader_with_buffer(&mut bytes, &mut [0; SCRATCH])
        };
        let value = read.map_err(|e| match e {
            ciborium::de::Error::Semantic(_, reason) => CodecError(reason),
            ciborium::de::Error::Syntax(at) => CodecError(format!("no CBOR from byte {at} on")),
            ciborium::de::Error::Io(_) => CodecError::new("the bytes end too early"),
            ciborium::de::Error::RecursionLimitExceeded => CodecError::new("nested too deep"),
        })?;
        if bytes.is_empty() { Ok(value) } else { Err(CodecError::new("bytes are left over")) }
    }
}

#[cfg(test)]
mod tests;
