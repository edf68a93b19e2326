//! The checksum of an event: CRC-32C over everything that a reader gets of it.
//!
//! SQLite notices damage to its trees, but not to their content. The order of the bytes is part of
//! the schema and never changes: first 66 bytes, with little-endian numbers,
//!
//! | bytes | what |
//! |---|---|
//! | 8, 8, 8 | position, version, `recorded_at` |
//! | 16 | id |
//! | 4, 2 | `schema_version`, content |
//! | 4 each | lengths of stream name, type name, tags, metadata, payload |
//!
//! then the five themselves in that order, the names as texts and the tags as they are stored.

use factum_kernel::{EventHeader, EventParts};

/// The bytes before the texts.
const FIXED_BYTES: usize = 66;

/// The checksum of an event, whatever numbers are stored for its names.
pub(crate) fn of(header: &EventHeader, parts: &EventParts<'_>) -> u32 {
    let EventParts { stream, name, tags, metadata, payload } = *parts;
    let bodies = [stream.as_bytes(), name.as_bytes(), tags, metadata, payload];
    let mut fixed = [0; FIXED_BYTES];
    fixed[..8].copy_from_slice(&header.position.value().to_le_bytes());
    fixed[8..16].copy_from_slice(&header.version.value().to_le_bytes());
    fixed[16..24].copy_from_slice(&header.recorded_at.as_micros().to_le_bytes());
    fixed[24..40].copy_from_slice(header.id.as_uuid().as_bytes());
    fixed[40..44].copy_from_slice(&header.schema_version.to_le_bytes());
    fixed[44..46].copy_from_slice(&header.content.number().to_le_bytes());
    for (place, body) in fixed[46..].chunks_exact_mut(4).zip(bodies) {
        // The limits keep an event far below 4 GiB; for a damaged length any number will do.
        place.copy_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    }
    let start = crc32c::crc32c(&fixed);
    bodies.iter().fold(start, |crc, body| crc32c::crc32c_append(crc, body))
}
