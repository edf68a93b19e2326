//! The form of an event in a plain file, and as a value of a key-value store: a header of 40 bytes
//! with a checksum, then the payload.

use std::hint::black_box;

use bytes::{Buf, BufMut};
use uuid::Uuid;

use crate::load::{PAYLOAD_BYTES, Record};

const HEADER_BYTES: usize = 40;
/// The offset where the checksummed part begins: after the checksum.
const CHECKED_FROM: usize = 4;

/// The length of the frame of each event of the load.
pub(crate) const FRAME_BYTES: usize = HEADER_BYTES + PAYLOAD_BYTES;

/// An event read back.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    position: u64,
    pub(crate) stream: usize,
    id: Uuid,
    payload: &'a [u8],
}

impl Frame<'_> {
    /// Uses all of it, as a reader would, so that the compiler can't leave out any of the decoding.
    pub(crate) fn see(&self) {
        black_box((self.position, self.stream, self.id, self.payload));
    }
}

/// The use of a checksum: computed and compared, or not.
///
/// An engine that checks its own pages needs none on every event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checksum {
    Used,
    LeftOut,
}

/// Appends an event.
pub(crate) fn encode(record: &Record, position: u64, checksum: Checksum, out: &mut Vec<u8>) {
    let start = out.len();
    out.put_u32_le(0);
    out.put_u32_le(record.payload.len() as u32);
    out.put_u64_le(position);
    out.put_slice(record.id.as_bytes());
    out.put_u64_le(record.stream as u64);
    out.put_slice(&record.payload);
    if checksum == Checksum::Used {
        let sum = crc32c::crc32c(&out[start + CHECKED_FROM..]);
        out[start..start + CHECKED_FROM].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Reads the event at the beginning.
pub(crate) fn decode(bytes: &[u8], checksum: Checksum) -> Frame<'_> {
    let mut header = &bytes[..HEADER_BYTES];
    let sum = header.get_u32_le();
    let end = HEADER_BYTES + header.get_u32_le() as usize;
    if checksum == Checksum::Used {
        assert_eq!(crc32c::crc32c(&bytes[CHECKED_FROM..end]), sum, "a frame is damaged");
    }
    let position = header.get_u64_le();
    let mut id = [0; 16];
    header.copy_to_slice(&mut id);
    let stream = header.get_u64_le() as usize;
    Frame { position, stream, id: Uuid::from_bytes(id), payload: &bytes[HEADER_BYTES..end] }
}
