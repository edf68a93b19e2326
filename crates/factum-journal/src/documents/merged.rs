//! The merge of several sorted sources into one, with the newest item of each key.

use std::iter::Peekable;

use bytes::Bytes;
use factum_kernel::{Direction, StoreError};

use super::table::Item;

/// The items of one source, sorted by key.
pub(super) type Source<'s> = Box<dyn Iterator<Item = Result<(Bytes, Item), StoreError>> + 's>;

/// The newest item of each key, sorted, removals included.
pub(super) struct Merged<'s> {
    /// The sources, newest first.
    sources: Vec<Peekable<Source<'s>>>,
    direction: Direction,
}

impl<'s> Merged<'s> {
    /// Merges `sources`, which are newest first and sorted in this direction.
    pub(super) fn new(sources: Vec<Source<'s>>, direction: Direction) -> Self {
        Self { sources: sources.into_iter().map(Iterator::peekable).collect(), direction }
    }

    fn next_key(&mut self) -> Result<Option<Bytes>, StoreError> {
        let mut next: Option<&Bytes> = None;
        for source in &mut self.sources {
            let key = match source.peek() {
                None => continue,
                Some(Err(error)) => return Err(error.clone()),
                Some(Ok((key, _))) => key,
            };
            let comes_first = next.is_none_or(|next| match self.direction {
                Direction::Forward => key < next,
                Direction::Backward => key > next,
            });
            if comes_first {
                next = Some(key);
            }
        }
        Ok(next.cloned())
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<(Bytes, Item), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.next_key() {
            Ok(key) => key?,
            Err(error) => return Some(Err(error)),
        };
        let mut newest = None;
        for source in &mut self.sources {
            let found = source.next_if(|it| it.as_ref().is_ok_and(|(key, _)| *key == next));
            newest = newest.or(found);
        }
        newest
    }
}
