//! Encoding of typed values as bytes, and decoding.

use bytes::{BufMut, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::{event::Content, kind::ErrorKind};

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

    /// Turns an upcast value into a typed one.
    ///
    /// # Errors
    /// The value has another shape.
    fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, CodecError> {
        value.deserialized().map_err(CodecError::new)
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

/// JSON (RFC 8259), for logs that people read with other tools.
#[derive(Debug, Clone, Copy)]
pub struct Json;

impl Codec for Json {
    const CONTENT: Content = Content::Json;

    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> Result<(), CodecError> {
        serde_json::to_writer(out.writer(), value).map_err(CodecError::new)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        serde_json::from_slice(bytes).map_err(CodecError::new)
    }

    // In JSON, UUIDs and times are text. Only a human-readable format such as JSON deserialises
    // them from text.
    fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, CodecError> {
        let value = serde_json::to_value(value).map_err(CodecError::new)?;
        serde_json::from_value(value).map_err(CodecError::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_left_over_are_an_error() {
        assert!(Cbor::decode::<u8>(&[1, 2]).is_err());
        assert!(Json::decode::<u8>(b"1 2").is_err());
    }

    #[test]
    fn a_value_out_of_json_still_reads_what_is_written_for_people() {
        let id = uuid::Uuid::from_u128(7);
        let mut out = BytesMut::new();
        Json::encode(&id, &mut out).unwrap();
        let value: Value = Json::decode(&out).unwrap();
        assert_eq!(Json::from_value::<uuid::Uuid>(&value), Ok(id));
    }
}
