//! A run: one sorted file that never changes. It holds the index of consecutive sealed segments, or
//! their documents.
//!
//! A run keeps in memory the first key of each block, and a Bloom filter over its terms: about two
//! bytes per term. Blocks are read on demand, and cached.

mod build;
mod merge;
mod range;
pub(crate) mod reader;

use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use factum_kernel::{Lineage, StoreError};
use uuid::Uuid;

use crate::{
    bloom::{self, Bloom},
    cache::Cache,
    disk::{File, Files, spend},
    error, key,
    number::{self, u32_at, u64_at},
};

pub(crate) use build::RunBuilder;
pub(crate) use merge::merge;
pub(crate) use range::RunEntries;

const FORMAT_VERSION: u32 = 1;
const FOOTER_BYTES: usize = 96;
/// The cost of a search in a cached block where reads must not wait, as the bytes that could be
/// read instead.
const CACHED_BYTES: usize = 1 << 10;

/// The kind of entries in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunKind {
    /// The index of events, which can be rebuilt from the log.
    Events,
    /// Documents, which are stored nowhere else.
    Documents,
}

impl RunKind {
    const fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Events => b"FACTUMIX",
            Self::Documents => b"FACTUMDO",
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Events => ".index",
            Self::Documents => ".documents",
        }
    }

    /// The term that the filter is asked for in a search for this key.
    fn term(self, key: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Events => key::split(key).map(|(term, _)| term),
            Self::Documents => Some(key),
        }
    }

    fn damaged(self, name: &str, offset: u64) -> StoreError {
        match self {
            Self::Events => error::damaged_index(name, offset),
            Self::Documents => {
                let what = format!("not what was written at offset={offset}");
                error::damaged_documents(name, what)
            }
        }
    }

    /// The name of the run that covers these positions.
    pub(crate) fn name(self, first: u64, last: u64) -> String {
        format!("{first:020}-{last:020}{}", self.suffix())
    }

    /// The positions that the runs among these names cover, sorted by their beginnings, the widest
    /// first.
    pub(crate) fn ranges_in(self, names: &[String]) -> Vec<(u64, u64)> {
        let range = |name: &String| {
            let (first, last) = name.strip_suffix(self.suffix())?.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        let mut found: Vec<(u64, u64)> = names.iter().filter_map(range).collect();
        found.sort_unstable_by_key(|(first, last)| (*first, std::cmp::Reverse(*last)));
        found
    }
}

/// The content of a run's footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunHeader {
    pub(crate) lineage: Lineage,
    /// The number of merges that led to this run.
    pub(crate) level: u32,
    /// The first position of the first segment that it covers.
    pub(crate) first: u64,
    /// The last position that it covers.
    pub(crate) last: u64,
    /// The first position and the salt of the last segment that it covers. They reveal a run of
    /// another log, or of another history of this log.
    pub(crate) segment: u64,
    pub(crate) salt: u64,
}

/// An open run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) header: RunHeader,
    pub(crate) name: String,
    /// The size of the file in bytes.
    pub(crate) bytes: u64,
    kind: RunKind,
    file: Arc<dyn File>,
    blocks: Vec<BlockRef>,
    bloom: Bloom,
    /// The key of its blocks in the cache. No two runs of a process share it.
    id: u64,
}

#[derive(Debug)]
struct BlockRef {
    first_key: Box<[u8]>,
    offset: u64,
    /// The length in bytes, with the checksum.
    len: u32,
}

/// An entry, in the block that holds it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    block: Arc<[u8]>,
    key: Range<usize>,
    value: Range<usize>,
}

/// The ranges of an entry's key and value in its block.
type Ranges = (Range<usize>, Range<usize>);

impl Entry {
    pub(crate) fn key(&self) -> &[u8] {
        &self.block[self.key.clone()]
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.block[self.value.clone()]
    }
}

impl Run {
    /// Opens a run of the index, and checks its footer and its list of blocks.
    pub(crate) fn open(files: &dyn Files, name: &str) -> Result<Self, StoreError> {
        Self::open_as(RunKind::Events, files, name)
    }

    /// Opens a run of this kind.
    pub(crate) fn open_as(
        kind: RunKind,
        files: &dyn Files,
        name: &str,
    ) -> Result<Self, StoreError> {
        let at = |e: io::Error| error::disk("opening a run", name, e);
        let file = files.open(name).map_err(at)?;
        let len = file.len().map_err(at)?;
        let damaged = |offset| kind.damaged(name, offset);
        let footer_at = len.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| damaged(0))?;
        let read = |offset: u64, len: u64| {
            let mut bytes = vec![0; usize::try_from(len).map_err(|_| damaged(offset))?];
            let read = file.fill_at(&mut bytes, offset).map_err(at)?;
            if read == bytes.len() { Ok(bytes) } else { Err(damaged(offset)) }
        };
        let footer = read(footer_at, FOOTER_BYTES as u64)?;
        let Footer { header, index_at, bloom_at } =
            read_footer(kind, &footer).ok_or_else(|| damaged(footer_at))?;
        if index_at > bloom_at || bloom_at > footer_at {
            return Err(damaged(footer_at));
        }
        let index = read(index_at, bloom_at - index_at)?;
        let bloom = read(bloom_at, footer_at - bloom_at)?;
        let index = checked(&index).ok_or_else(|| damaged(index_at))?;
        let bloom = checked(&bloom).ok_or_else(|| damaged(bloom_at))?;
        let blocks = read_index(index, index_at).ok_or_else(|| damaged(index_at))?;
        static IDS: AtomicU64 = AtomicU64::new(0);
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let bloom = Bloom::from_bytes(bloom.to_vec());
        Ok(Self { header, name: name.into(), bytes: len, kind, file, blocks, bloom, id })
    }

    /// Returns whether a term may be in it; false is certain.
    pub(crate) fn may_hold(&self, term: &[u8]) -> bool {
        self.bloom.may_hold(bloom::hash(term))
    }

    /// The last entry whose key is at or before this one.
    pub(crate) fn at_or_before(
        &self,
        cache: &Cache,
        key: &[u8],
    ) -> Result<Option<Entry>, StoreError> {
        let after = self.blocks.partition_point(|block| &block.first_key[..] <= key);
        let Some(index) = after.checked_sub(1) else { return Ok(None) };
        let block = self.block(cache, index)?;
        let mut found = None;
        let mut at = 0;
        while let Some(ranges) = self.ranges(&block, index, at)? {
            if &block[ranges.0.clone()] > key {
                break;
            }
            at = ranges.1.end;
            found = Some(ranges);
        }
        Ok(found.map(|(key, value)| Entry { block, key, value }))
    }

    /// Returns whether the last entry at or before a key can be found without reading the disk.
    pub(crate) fn is_cached(&self, cache: &Cache, key: &[u8]) -> bool {
        let after = self.blocks.partition_point(|block| &block.first_key[..] <= key);
        after.checked_sub(1).is_none_or(|index| cache.block(self.block_id(index)).is_some())
    }

    /// The first entry whose key is at or after this one.
    pub(crate) fn at_or_after(
        &self,
        cache: &Cache,
        key: &[u8],
    ) -> Result<Option<Entry>, StoreError> {
        let after = self.blocks.partition_point(|block| &block.first_key[..] <= key);
        let mut index = after.saturating_sub(1);
        while index < self.blocks.len() {
            let block = self.block(cache, index)?;
            let mut at = 0;
            while let Some((found, value)) = self.ranges(&block, index, at)? {
                if &block[found.clone()] >= key {
                    return Ok(Some(Entry { block, key: found, value }));
                }
                at = value.end;
            }
            index += 1;
        }
        Ok(None)
    }

    /// The entry with exactly this key.
    pub(crate) fn at(&self, cache: &Cache, key: &[u8]) -> Result<Option<Entry>, StoreError> {
        Ok(self.at_or_before(cache, key)?.filter(|entry| entry.key() == key))
    }

    /// The bytes that it takes in memory, approximately.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        let block = |block: &BlockRef| size_of::<BlockRef>() + block.first_key.len();
        self.blocks.iter().map(block).sum::<usize>() + self.bloom.as_bytes().len()
    }

    pub(crate) fn block_count(&self) -> usize {
        self.blocks.len()
    }

    /// The entries of a block, read past the cache.
    pub(crate) fn entries(&self, index: usize) -> Result<Vec<Entry>, StoreError> {
        self.entries_of(self.read_block(index)?, index)
    }

    /// Reads the whole run, and checks that every block is intact and every entry can be found.
    /// `is_good` returns whether an entry is valid.
    pub(crate) fn check(&self, mut is_good: impl FnMut(&Entry) -> bool) -> Result<(), StoreError> {
        let mut last: Option<Entry> = None;
        for (index, block) in self.blocks.iter().enumerate() {
            let entries = self.entries(index)?;
            if entries.first().is_none_or(|entry| *entry.key() != *block.first_key) {
                return Err(self.damaged(index));
            }
            for entry in entries {
                let is_past = last.as_ref().is_none_or(|last| last.key() < entry.key());
                let is_held = self.kind.term(entry.key()).is_none_or(|term| self.may_hold(term));
                if !is_past || !is_held || !is_good(&entry) {
                    return Err(self.damaged(index));
                }
                last = Some(entry);
            }
        }
        Ok(())
    }

    fn entries_of(&self, block: Arc<[u8]>, index: usize) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        let mut at = 0;
        while let Some((key, value)) = self.ranges(&block, index, at)? {
            at = value.end;
            entries.push(Entry { block: block.clone(), key, value });
        }
        Ok(entries)
    }

    fn block(&self, cache: &Cache, index: usize) -> Result<Arc<[u8]>, StoreError> {
        let id = self.block_id(index);
        if let Some(block) = cache.block(id) {
            let spent = spend(CACHED_BYTES);
            spent.map_err(|e| error::disk("reading a run", &self.name, e))?;
            return Ok(block);
        }
        let block = self.read_block(index)?;
        cache.keep(id, block.clone());
        Ok(block)
    }

    /// Reads a block, checks it, and returns the bytes of its entries.
    fn read_block(&self, index: usize) -> Result<Arc<[u8]>, StoreError> {
        let BlockRef { offset, len, .. } = self.blocks[index];
        let mut bytes = vec![0; len as usize];
        let read = self
            .file
            .fill_at(&mut bytes, offset)
            .map_err(|e| error::disk("reading a run", &self.name, e))?;
        let block = checked(&bytes[..read]).filter(|_| read == bytes.len());
        block.map(Arc::from).ok_or_else(|| self.damaged(index))
    }

    fn block_id(&self, index: usize) -> (u64, u32) {
        (self.id, u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The ranges of the key and the value of the entry at this offset; `None` at the end of the
    /// block.
    fn ranges(&self, block: &[u8], index: usize, at: usize) -> Result<Option<Ranges>, StoreError> {
        if at == block.len() {
            return Ok(None);
        }
        let mut rest = &block[at..];
        let lens = number::take_len(&mut rest).zip(number::take_len(&mut rest));
        let (key_len, value_len) = lens.ok_or_else(|| self.damaged(index))?;
        let start = block.len() - rest.len();
        let key = start..start.saturating_add(key_len);
        let value = key.end..key.end.saturating_add(value_len);
        if value.end > block.len() {
            return Err(self.damaged(index));
        }
        Ok(Some((key, value)))
    }

    /// The error for a block that differs from what was written.
    pub(crate) fn damaged(&self, block: usize) -> StoreError {
        self.kind.damaged(&self.name, self.blocks.get(block).map_or(0, |block| block.offset))
    }
}

/// The bytes before the checksum at their end; `None` if the checksum does not match.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (bytes, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    (crc32c::crc32c(bytes) == u32_at(crc, 0)).then_some(bytes)
}

/// The footer of a run, and where its other parts begin.
struct Footer {
    header: RunHeader,
    index_at: u64,
    bloom_at: u64,
}

fn read_footer(kind: RunKind, bytes: &[u8]) -> Option<Footer> {
    let bytes = checked(bytes).filter(|bytes| bytes[..8] == *kind.magic())?;
    if u32_at(bytes, 8) != FORMAT_VERSION {
        return None;
    }
    let lineage: [u8; 16] = bytes[16..32].try_into().ok()?;
    let header = RunHeader {
        lineage: Lineage::new(Uuid::from_bytes(lineage)),
        level: u32_at(bytes, 12),
        first: u64_at(bytes, 32),
        last: u64_at(bytes, 40),
        segment: u64_at(bytes, 48),
        salt: u64_at(bytes, 56),
    };
    Some(Footer { header, index_at: u64_at(bytes, 64), bloom_at: u64_at(bytes, 72) })
}

fn read_index(mut bytes: &[u8], end: u64) -> Option<Vec<BlockRef>> {
    let mut blocks = Vec::new();
    let mut offset = 0;
    while !bytes.is_empty() {
        let len = u32::try_from(number::take(&mut bytes)?).ok()?;
        let key_len = number::take_len(&mut bytes)?;
        let first_key = number::take_bytes(&mut bytes, key_len)?.into();
        blocks.push(BlockRef { first_key, offset, len });
        offset += u64::from(len);
    }
    (offset == end).then_some(blocks)
}

/// The name of the run of the index that covers these positions.
pub(crate) fn run_name(first: u64, last: u64) -> String {
    RunKind::Events.name(first, last)
}

/// The positions that the index runs among these names cover, sorted by their beginnings, the
/// widest first.
pub(crate) fn runs_in(names: &[String]) -> Vec<(u64, u64)> {
    RunKind::Events.ranges_in(names)
}

#[cfg(test)]
mod tests;
