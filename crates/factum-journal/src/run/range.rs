//! An iteration over the entries of a run between two keys, in either direction.

use std::{ops::Range, sync::Arc};

use factum_kernel::{Direction, KeyRange, StoreError};

use super::{Entry, Run};
use crate::cache::Cache;

/// The entries of a run within a range of keys. One block at a time is in memory.
pub(crate) struct RunEntries<'c> {
    run: Arc<Run>,
    /// `None`: the blocks read are not cached.
    cache: Option<&'c Cache>,
    range: KeyRange,
    direction: Direction,
    blocks: Range<usize>,
    entries: std::vec::IntoIter<Entry>,
}

impl<'c> RunEntries<'c> {
    pub(crate) fn new(
        run: Arc<Run>,
        cache: Option<&'c Cache>,
        range: KeyRange,
        direction: Direction,
    ) -> Self {
        let begin = run.blocks.partition_point(|block| block.first_key[..] <= range.from[..]);
        let end = range.to.as_ref().map_or(run.blocks.len(), |to| {
            run.blocks.partition_point(|block| block.first_key[..] < to[..])
        });
        let blocks = begin.saturating_sub(1)..end;
        Self { run, cache, range, direction, blocks, entries: Vec::new().into_iter() }
    }

    fn read(&self, index: usize) -> Result<Vec<Entry>, StoreError> {
        let block = match self.cache {
            Some(cache) => self.run.block(cache, index)?,
            None => self.run.read_block(index)?,
        };
        let mut entries = self.run.entries_of(block, index)?;
        entries.retain(|entry| self.range.contains(entry.key()));
        Ok(entries)
    }
}

impl Iterator for RunEntries<'_> {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let is_forward = self.direction == Direction::Forward;
            let entry = if is_forward { self.entries.next() } else { self.entries.next_back() };
            if let Some(entry) = entry {
                return Some(Ok(entry));
            }
            let block = if is_forward { self.blocks.next() } else { self.blocks.next_back() };
            match self.read(block?) {
                Ok(entries) => self.entries = entries.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
