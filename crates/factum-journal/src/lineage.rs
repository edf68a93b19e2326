//! The lineage that pages carry. At first it is that of the segments. A renewed lineage stands in a
//! file of its own beside the marker; the segments keep theirs, which their checksums depend on.

use std::{io, path::Path};

use bytes::BufMut;
use factum_kernel::{Clock, IdSource, Lineage, StoreError, SystemClock, SystemIds};
use uuid::Uuid;

use crate::{
    disk::Files,
    error,
    lock::Lock,
    number::u32_at,
    place::{LOG, MARKER, open_folder},
};

/// The name of the file that holds a renewed lineage.
pub(crate) const LINEAGE: &str = "lineage";

const MAGIC: &[u8; 8] = b"FACTUMLN";
const FORMAT_VERSION: u32 = 1;
const BYTES: usize = 32;

fn encode(lineage: Lineage) -> Vec<u8> {
    let mut out = Vec::with_capacity(BYTES);
    out.put_slice(MAGIC);
    out.put_u32_le(FORMAT_VERSION);
    out.put_u32_le(crc32c::crc32c(lineage.as_uuid().as_bytes()));
    out.put_slice(lineage.as_uuid().as_bytes());
    out
}

fn decode(bytes: &[u8]) -> Option<Lineage> {
    let lineage: [u8; 16] = bytes.get(16..BYTES)?.try_into().ok()?;
    let is_good = bytes.len() == BYTES
        && &bytes[..8] == MAGIC
        && u32_at(bytes, 8) == FORMAT_VERSION
        && u32_at(bytes, 12) == crc32c::crc32c(&lineage);
    is_good.then(|| Lineage::new(Uuid::from_bytes(lineage)))
}

/// The renewed lineage of a journal; `None` if it has its first.
pub(crate) fn renewed(top: &dyn Files) -> Result<Option<Lineage>, StoreError> {
    let read = top.open(LINEAGE).and_then(|file| file.read_all());
    match read {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(error::disk("reading the lineage", LINEAGE, e)),
        Ok(bytes) => decode(&bytes).map(Some).ok_or_else(|| {
            StoreError::corrupt(format!(
                "the file of the journal's lineage is damaged; renew the lineage and start the \
                consumers from the beginning: file={LINEAGE}"
            ))
        }),
    }
}

/// Gives a journal another lineage, durably.
pub(crate) fn renew(top: &dyn Files, lineage: Lineage) -> Result<(), StoreError> {
    let put = top.put(LINEAGE, &encode(lineage));
    put.map_err(|e| error::disk("renewing the lineage", LINEAGE, e))
}

/// Makes a lineage that no other log has.
pub(crate) fn new_lineage() -> Lineage {
    Lineage::new(SystemIds.uuid(SystemClock.now()))
}

/// Gives a journal a new lineage. From the next opening on, consumers see another log: they stop at
/// their checkpoints instead of mixing two histories.
///
/// Run it on a journal that was restored from a backup, before the journal is opened; and on the
/// copy, if a journal was copied and both are used further. Don't run it after a whole journal was
/// moved. Events, versions, positions and documents stay. Consumers must be started from the
/// beginning, and snapshots are made again.
///
/// # Errors
/// `Invalid`: there is no journal at this path. `Unavailable`: a writer has the journal open, close
/// it first; or the disk fails.
///
/// ```
/// use factum_kernel::{EventStore, ReadQuery};
/// use factum_journal::{JournalOptions, JournalStore, renew_lineage};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # JournalStore::open(JournalOptions::new(folder.path())).await?.close().await?;
/// let lineage = renew_lineage(folder.path())?;
/// let store = JournalStore::open(JournalOptions::new(folder.path())).await?;
/// assert_eq!(store.read(ReadQuery::log()).await?.lineage, lineage);
/// # store.close().await?;
/// # Ok::<(), factum_kernel::StoreError>(()) }).unwrap();
/// ```
pub fn renew_lineage(path: &Path) -> Result<Lineage, StoreError> {
    if !path.join(MARKER).is_file() || !path.join(LOG).is_dir() {
        let message = format!("there is no journal, check the path: path={}", path.display());
        return Err(StoreError::invalid(message));
    }
    let top = open_folder(path)?;
    let _lock = Lock::take(&top)?;
    let lineage = new_lineage();
    renew(&top, lineage)?;
    Ok(lineage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lineage_comes_back_and_every_flipped_bit_is_noticed() {
        let lineage = Lineage::new(Uuid::from_u128(7));
        let bytes = encode(lineage);
        assert_eq!(decode(&bytes), Some(lineage));
        assert_eq!(decode(&bytes[..31]), None);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bytes), None, "bit {bit}");
        }
    }
}
