//! The content of one segment of the documents' log, in memory: the newest item of each key.

use std::{
    collections::{BTreeMap, btree_map},
    ops::Bound,
};

use bytes::{BufMut, Bytes};
use factum_kernel::{Direction, Document, KeyRange, Revision};

use super::merged::Source;
use crate::{
    frames::Frame,
    number::{put, take},
    record::{DocumentRecord, Record},
    segment::Segment,
};

/// The newest version of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) revision: u64,
    /// `None`: the document was removed.
    pub(super) value: Option<Bytes>,
}

impl Item {
    pub(super) fn into_document(self, key: Bytes) -> Option<Document> {
        let revision = Revision::new(self.revision);
        self.value.map(|value| Document { key, revision, value })
    }

    /// Encodes the item as the value of an entry in a run.
    pub(super) fn encode(&self) -> Vec<u8> {
        let value = self.value.as_deref();
        let mut out = Vec::with_capacity(11 + value.map_or(0, <[u8]>::len));
        out.put_u8(u8::from(value.is_some()));
        put(&mut out, self.revision);
        out.put_slice(value.unwrap_or_default());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (is_there, mut rest) = bytes.split_first()?;
        let revision = take(&mut rest)?;
        let value = (*is_there == 1).then(|| Bytes::copy_from_slice(rest));
        Some(Self { revision, value })
    }
}

/// The content of a segment.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) segment: Segment,
    items: BTreeMap<Bytes, Item>,
}

impl Table {
    pub(super) fn new(segment: &Segment) -> Self {
        Self { segment: segment.clone(), items: BTreeMap::new() }
    }

    /// The first revision of the segment.
    pub(super) fn first(&self) -> u64 {
        self.segment.header.first
    }

    pub(super) fn item(&self, key: &[u8]) -> Option<&Item> {
        self.items.get(key)
    }

    pub(super) fn items(&self) -> impl ExactSizeIterator<Item = (&Bytes, &Item)> {
        self.items.iter()
    }

    /// Adds a frame that was read.
    pub(super) fn add(&mut self, frame: &Frame<'_>) {
        for (_, record) in &frame.records {
            if let Record::Document(DocumentRecord { revision, key, value }) = record {
                self.set(key, *revision, *value);
            }
        }
    }

    /// Sets the item of a key. Copies key and value, which may be small parts of a large buffer.
    pub(super) fn set(&mut self, key: &[u8], revision: u64, value: Option<&[u8]>) {
        let item = Item { revision, value: value.map(Bytes::copy_from_slice) };
        match self.items.get_mut(key) {
            Some(there) => *there = item,
            None => drop(self.items.insert(Bytes::copy_from_slice(key), item)),
        }
    }

    pub(super) fn source(&self, range: &KeyRange, direction: Direction) -> Source<'_> {
        let items = self.within(range).map(|(key, item)| Ok((key.clone(), item.clone())));
        match direction {
            Direction::Forward => Box::new(items),
            Direction::Backward => Box::new(items.rev()),
        }
    }

    /// The items that a page with these limits can need: one document more than it takes.
    pub(super) fn page(
        &self,
        range: &KeyRange,
        direction: Direction,
        documents_max: usize,
        bytes_max: usize,
    ) -> Vec<(Bytes, Item)> {
        let mut items = self.within(range);
        let mut found = Vec::new();
        let mut documents = 0;
        let mut bytes = 0;
        // A document that is larger than the page is returned alone.
        while documents <= documents_max && (bytes <= bytes_max || documents < 2) {
            let next = match direction {
                Direction::Forward => items.next(),
                Direction::Backward => items.next_back(),
            };
            let Some((key, item)) = next else { break };
            if let Some(value) = &item.value {
                documents += 1;
                bytes += key.len() + value.len();
            }
            found.push((key.clone(), item.clone()));
        }
        found
    }

    fn within(&self, range: &KeyRange) -> btree_map::Range<'_, Bytes, Item> {
        let to = match &range.to {
            // A reversed range is empty by our rules, but makes the map panic.
            Some(to) if *to < range.from => Bound::Excluded(&range.from),
            Some(to) => Bound::Excluded(to),
            None => Bound::Unbounded,
        };
        self.items.range::<Bytes, _>((Bound::Included(&range.from), to))
    }
}
