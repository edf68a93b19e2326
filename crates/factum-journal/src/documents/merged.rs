//! Several sorted sources as one: of each key the newest.

use std::iter::Peekable;

use bytes::Bytes;
use factum_kernel::{Direction, StoreError};

use super::table::Item;

/// What one place knows of keys, in order.
pub(super) type Source<'s> = Box<dyn Iterator<Item = Result<(Bytes, Item), StoreError>> + 's>;

/// The newest of each key, in order, removals as well.
pub(super) struct Merged<'s> {
    /// From the newest on.
    sources: Vec<Peekable<Source<'s>>>,
    direction: Direction,
}

impl<'s> Merged<'s> {
    /// `sources` are from the newest on, each in this direction.
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
