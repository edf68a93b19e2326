//! The writer of a run: it takes the entries in the order of their keys.

use std::{io, sync::Arc};

use bytes::BufMut;
use factum_kernel::StoreError;

use super::{FOOTER_BYTES, FORMAT_VERSION, RunHeader, RunKind};
use crate::{
    bloom::{self, Bloom},
    disk::{File, Files, UNFINISHED},
    error, number,
};

/// A block ends with the entry that brings it to this size.
const BLOCK_BYTES: usize = 4 << 10;
/// The number of bytes of blocks in one write.
const WRITE_BYTES: usize = 256 << 10;

/// Writes a run. Until it is finished, no reader finds it.
pub(crate) struct RunBuilder<'f> {
    kind: RunKind,
    files: &'f dyn Files,
    header: RunHeader,
    name: String,
    file: Arc<dyn File>,
    written: u64,
    out: Vec<u8>,
    block: Vec<u8>,
    first_key: Vec<u8>,
    index: Vec<u8>,
    terms: Vec<u64>,
    is_finished: bool,
}

impl<'f> RunBuilder<'f> {
    /// Begins a run of the index.
    pub(crate) fn new(files: &'f dyn Files, header: RunHeader) -> Result<Self, StoreError> {
        Self::of(RunKind::Events, files, header)
    }

    /// Begins a run of this kind.
    pub(crate) fn of(
        kind: RunKind,
        files: &'f dyn Files,
        header: RunHeader,
    ) -> Result<Self, StoreError> {
        let name = kind.name(header.first, header.last);
        let file = files
            .create(&format!("{name}{UNFINISHED}"))
            .map_err(|e| error::disk("making a run", &name, e))?;
        Ok(Self {
            kind,
            files,
            header,
            name,
            file,
            written: 0,
            out: Vec::new(),
            block: Vec::new(),
            first_key: Vec::new(),
            index: Vec::new(),
            terms: Vec::new(),
            is_finished: false,
        })
    }

    /// Adds an entry. Its key must be greater than the last one's.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        // A read of a small entry must not read a large one as well.
        if value.len() >= BLOCK_BYTES {
            self.end_block()?;
        }
        if self.block.is_empty() {
            self.first_key = key.to_vec();
        }
        number::put(&mut self.block, key.len() as u64);
        number::put(&mut self.block, value.len() as u64);
        self.block.put_slice(key);
        self.block.put_slice(value);
        if let Some(term) = self.kind.term(key) {
            let hash = bloom::hash(term);
            // The chunks of a term are consecutive.
            if self.terms.last() != Some(&hash) {
                self.terms.push(hash);
            }
        }
        if self.block.len() >= BLOCK_BYTES { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> Result<(), StoreError> {
        if self.block.is_empty() {
            return Ok(());
        }
        number::put(&mut self.index, self.block.len() as u64 + 4);
        number::put(&mut self.index, self.first_key.len() as u64);
        self.index.put_slice(&self.first_key);
        put_checked(&mut self.out, &self.block);
        self.block.clear();
        if self.out.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.file.write_at(&self.out, self.written).map_err(|e| self.disk(e))?;
        self.written += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }

    /// Puts the run in place, durably, and returns its name.
    pub(crate) fn finish(mut self) -> Result<String, StoreError> {
        self.end_block()?;
        let index_at = self.written + self.out.len() as u64;
        let index = std::mem::take(&mut self.index);
        put_checked(&mut self.out, &index);
        let bloom_at = self.written + self.out.len() as u64;
        put_checked(&mut self.out, Bloom::new(&self.terms).as_bytes());
        let footer = self.footer(index_at, bloom_at);
        put_checked(&mut self.out, &footer);
        self.flush()?;
        let placed = self
            .file
            .sync()
            .and_then(|()| self.files.rename(&format!("{}{UNFINISHED}", self.name), &self.name))
            .and_then(|()| self.files.sync_names());
        placed.map_err(|e| self.disk(e))?;
        self.is_finished = true;
        Ok(std::mem::take(&mut self.name))
    }

    fn footer(&self, index_at: u64, bloom_at: u64) -> Vec<u8> {
        let RunHeader { lineage, level, first, last, segment, salt } = self.header;
        let mut footer = Vec::with_capacity(FOOTER_BYTES);
        footer.put_slice(self.kind.magic());
        footer.put_u32_le(FORMAT_VERSION);
        footer.put_u32_le(level);
        footer.put_slice(lineage.as_uuid().as_bytes());
        for number in [first, last, segment, salt, index_at, bloom_at] {
            footer.put_u64_le(number);
        }
        footer.resize(FOOTER_BYTES - 4, 0);
        footer
    }

    fn disk(&self, error: io::Error) -> StoreError {
        error::disk("writing a run", &self.name, error)
    }
}

impl Drop for RunBuilder<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            // On a full disk its space is needed. If this fails, the next opening removes the file.
            let _ = self.files.remove(&format!("{}{UNFINISHED}", self.name));
        }
    }
}

fn put_checked(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_slice(bytes);
    out.put_u32_le(crc32c::crc32c(bytes));
}
