//! The check that a stored value reads back as the value that was written.

use bytes::BytesMut;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    codec::{Cbor, Codec, CodecError},
    digest::{digest, digests_by_name},
};

/// The reason why a value is not stored: it would not read back as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadBackError {
    /// The value can't be encoded.
    #[error("the value can't be encoded: {0}")]
    Encode(CodecError),
    /// The encoded value can't be decoded.
    #[error("the value can't be read back, see that its type serialises both ways: {0}")]
    Decode(CodecError),
    /// The encoded value decodes to another value.
    #[error(
        "the value reads back as another one, give the field a type that its codec holds, \
         and serialise it both ways: field={field}"
    )]
    Changed {
        /// The first field that differs; empty for a value whose fields have no names.
        field: &'static str,
    },
}

/// Encodes a value in CBOR and decodes it again. Returns the digest of the value, by which a later
/// reader knows it.
///
/// # Errors
/// A value that does not read back as it is.
pub fn encode_read_back<T: Serialize + DeserializeOwned>(
    value: &T,
    out: &mut BytesMut,
) -> Result<u64, ReadBackError> {
    let start = out.len();
    Cbor::encode(value, out).map_err(ReadBackError::Encode)?;
    let read = Cbor::decode::<T>(&out[start..]).map_err(ReadBackError::Decode)?;
    let written = digest_of(value).map_err(ReadBackError::Encode)?;
    match digest_of(&read) {
        Ok(read) if read == written => Ok(written),
        _ => Err(ReadBackError::Changed { field: changed_field(value, &read) }),
    }
}

/// The digest of a value as serde sees it. It changes when the type gains, loses or renames a
/// field.
///
/// # Errors
/// The type refuses to be serialised.
pub fn digest_of<T: Serialize>(value: &T) -> Result<u64, CodecError> {
    digest(value).map_err(CodecError::new)
}

/// The first field that differs between two values; empty if their fields have no names.
pub(crate) fn changed_field<T: Serialize>(written: &T, read: &T) -> &'static str {
    let written = digests_by_name(written);
    let read = digests_by_name(read);
    let mut pairs = written.iter().zip(&read);
    let differing = pairs.find(|(written, read)| written != read).map(|(written, _)| written.0);
    // A field that one of them leaves out comes after all that both have.
    let longer = if written.len() > read.len() { &written } else { &read };
    let left = longer.get(written.len().min(read.len())).map(|field| field.0);
    differing.or(left).unwrap_or_default()
}
