//! The merge of several runs into one. Readers ask fewer runs then, and the chunks of a term are
//! joined.

use factum_kernel::StoreError;

use super::{Entry, Run, RunBuilder, RunHeader};
use crate::{
    chunk::{self, CHUNK_MAX},
    disk::Files,
    erased, error, key,
};

/// Writes one run in place of several consecutive ones, and returns its name; `None` if it was
/// stopped.
pub(crate) fn merge(
    files: &dyn Files,
    runs: &[&Run],
    is_stopped: &dyn Fn() -> bool,
) -> Result<Option<String>, StoreError> {
    let first = runs[0].header;
    let last = runs[runs.len() - 1].header;
    let level = runs.iter().map(|run| run.header.level).max().unwrap_or(0) + 1;
    let header = RunHeader { level, first: first.first, ..last };
    let mut joiner = Joiner { out: RunBuilder::new(files, header)?, pending: None };
    let mut cursors = runs.iter().map(|run| Cursor::new(run)).collect::<Result<Vec<_>, _>>()?;
    while let Some(least) = least(&cursors) {
        if is_stopped() {
            return Ok(None);
        }
        let entry = cursors[least].take()?;
        joiner.add(entry.key(), entry.value())?;
    }
    joiner.finish().map(Some)
}

/// The cursor with the smallest key; of equal keys, the newest run's.
fn least(cursors: &[Cursor<'_>]) -> Option<usize> {
    let keys = cursors.iter().enumerate().filter_map(|(index, c)| Some((c.key()?, index)));
    keys.min_by(|(a, newer_a), (b, newer_b)| a.cmp(b).then(newer_b.cmp(newer_a))).map(|it| it.1)
}

/// A cursor through a run, block by block.
struct Cursor<'r> {
    run: &'r Run,
    next_block: usize,
    entries: std::vec::IntoIter<Entry>,
}

impl<'r> Cursor<'r> {
    fn new(run: &'r Run) -> Result<Self, StoreError> {
        let mut cursor = Self { run, next_block: 0, entries: Vec::new().into_iter() };
        cursor.refill()?;
        Ok(cursor)
    }

    fn refill(&mut self) -> Result<(), StoreError> {
        while self.entries.len() == 0 && self.next_block < self.run.block_count() {
            self.entries = self.run.entries(self.next_block)?.into_iter();
            self.next_block += 1;
        }
        Ok(())
    }

    fn key(&self) -> Option<&[u8]> {
        self.entries.as_slice().first().map(Entry::key)
    }

    fn take(&mut self) -> Result<Entry, StoreError> {
        let entry = self.entries.next().expect("only a cursor with a key is taken from");
        self.refill()?;
        Ok(entry)
    }
}

/// Writes entries, drops those that a newer entry of the same key replaces, and joins small chunks.
struct Joiner<'f> {
    out: RunBuilder<'f>,
    /// The last entry, while others may still be joined to it.
    pending: Option<Pending>,
}

struct Pending {
    key: Vec<u8>,
    value: Vec<u8>,
    /// Its numbers, if it is a chunk with room for more.
    numbers: Option<Vec<u64>>,
}

impl Joiner<'_> {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        if let Some(pending) = &mut self.pending {
            if pending.key == key {
                return pending.unite(key, value);
            }
            if pending.join(key, value) {
                return Ok(());
            }
        }
        let numbers = growing(key, value);
        let entry = Pending { key: key.to_vec(), value: value.to_vec(), numbers };
        match self.pending.replace(entry) {
            Some(before) => before.write(&mut self.out),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<String, StoreError> {
        if let Some(last) = self.pending.take() {
            last.write(&mut self.out)?;
        }
        self.out.finish()
    }
}

impl Pending {
    /// Merges an older entry of the same key into this one. The newest entry comes first and
    /// replaces older ones, except for erased positions, which are united. A run that was rebuilt
    /// from a rewritten segment may know of more erased positions than runs that were written after
    /// it.
    fn unite(&mut self, key: &[u8], older: &[u8]) -> Result<(), StoreError> {
        if key::is_erased(key) {
            let united = key::number_of(key)
                .and_then(|container| erased::union(container, [&self.value, older]));
            self.value = united.ok_or_else(|| error::damaged_index("merged", 0))?;
        }
        Ok(())
    }

    /// Joins the entry to this one if possible, and returns whether it did.
    fn join(&mut self, key: &[u8], value: &[u8]) -> bool {
        let (Some(numbers), Some(more)) = (&mut self.numbers, growing(key, value)) else {
            return false;
        };
        let (Some((term, first)), Some((other, next))) = (key::split(&self.key), key::split(key))
        else {
            return false;
        };
        // A deletion takes a version that has no position, and no chunk spans that gap.
        let follows = !key::is_stream(term) || first + numbers.len() as u64 == next;
        let fits = numbers.len() + more.len() <= CHUNK_MAX;
        if term == other && follows && fits {
            numbers.extend(more);
            return true;
        }
        false
    }

    fn write(self, out: &mut RunBuilder<'_>) -> Result<(), StoreError> {
        match &self.numbers {
            Some(numbers) => out.add(&self.key, &chunk::encode(numbers)),
            None => out.add(&self.key, &self.value),
        }
    }
}

/// The numbers of a chunk with room for more; `None` for a full chunk, or for another kind of
/// entry.
fn growing(key: &[u8], value: &[u8]) -> Option<Vec<u64>> {
    let (_, number) = key::split(key)?;
    // Number 0 is the state of a stream.
    if number == 0 || value.len() >= CHUNK_MAX * 2 {
        return None;
    }
    chunk::decode(value).filter(|numbers| numbers.len() < CHUNK_MAX)
}
