//! A disk in memory, under a system that delays writes until a sync, and may lose or tear them.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{
    disk::{File, Files},
    place::{DOCUMENTS, LOG},
    verify::Folders,
};

const SECTOR: usize = 512;

/// The behaviour of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Syncs {
    #[default]
    Honoured,
    /// A sync succeeds, but nothing becomes durable.
    Ignored,
    /// The sync of names at the beginning of an opening is left out.
    NamesIgnoredAtOpening,
    /// The sync of names after a new segment's is left out.
    NamesIgnoredAtRolling,
}

/// A random generator: SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub(super) fn toss_one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// The disk, and the system in front of it.
#[derive(Debug, Clone)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug, Clone)]
struct State {
    random: Random,
    syncs: Syncs,
    /// The files by number; names refer to these.
    files: Vec<Content>,
    /// The names in the system's view, and the durable names.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// The changes of names that are not durable: each is done whole or not at all.
    pending_names: Vec<Change>,
    /// The calls until the power goes.
    calls_to_cut: Option<u64>,
    calls_to_error: Option<u64>,
    /// The bytes by which files may still grow.
    room: Option<u64>,
    is_off: bool,
    /// True if the next sync of names is the first of an opening.
    is_opening: bool,
    /// True while a process has the journal open for writing.
    has_writer: bool,
}

/// A change of names that happens as a whole: each name, and the file that it refers to afterwards;
/// `None` if the name is removed.
type Change = Vec<(String, Option<usize>)>;

#[derive(Debug, Default, Clone)]
struct Content {
    /// The bytes in the system's view, and the durable bytes.
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// The writes that are not durable, a sector or less each.
    pending: Vec<(usize, Vec<u8>)>,
}

fn overwrite(bytes: &mut Vec<u8>, offset: usize, with: &[u8]) {
    if bytes.len() < offset + with.len() {
        bytes.resize(offset + with.len(), 0);
    }
    bytes[offset..offset + with.len()].copy_from_slice(with);
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

impl SimDisk {
    pub(super) fn new(seed: u64, syncs: Syncs) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: Random::new(seed ^ 0xd15c),
            syncs,
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            calls_to_cut: None,
            calls_to_error: None,
            room: None,
            is_off: false,
            is_opening: false,
            has_writer: false,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Another disk with the same content.
    pub(super) fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.state().clone())))
    }

    pub(super) fn folder(&self, name: &str) -> Arc<dyn Files> {
        Arc::new(SimFolder { disk: self.clone(), prefix: format!("{name}/") })
    }

    /// The folder that holds the others.
    pub(super) fn top(&self) -> Arc<dyn Files> {
        Arc::new(SimFolder { disk: self.clone(), prefix: String::new() })
    }

    /// The folders of the journal.
    pub(super) fn folders(&self) -> Folders {
        let log = self.folder(LOG);
        let documents = self.folder(DOCUMENTS);
        Folders { top: self.top(), log, documents }
    }

    /// Marks the beginning of an opening.
    pub(super) fn open_begins(&self) {
        self.state().is_opening = true;
    }

    /// Starts another process after only the process was killed: the system still has all that it
    /// had.
    pub(super) fn revive(&self) {
        let state = &mut *self.state();
        (state.is_off, state.calls_to_cut, state.calls_to_error) = (false, None, None);
        state.has_writer = false;
    }

    /// Takes or releases the lock of the journal.
    pub(super) fn lock(&self, has_writer: bool) {
        self.state().has_writer = has_writer;
    }

    /// Cuts the power at the call after this many.
    pub(super) fn cut_after(&self, calls: u64) {
        self.state().calls_to_cut = Some(calls);
    }

    /// Refuses the call after this many; later calls succeed.
    pub(super) fn refuse_after(&self, calls: Option<u64>) {
        self.state().calls_to_error = calls;
    }

    /// Limits the growth of files to this many bytes.
    pub(super) fn limit(&self, room: Option<u64>) {
        self.state().room = room;
    }

    pub(super) fn is_off(&self) -> bool {
        self.state().is_off
    }

    /// Restores the power: some unsynced writes are there, and some are not, in any order.
    pub(super) fn restart(&self) {
        let state = &mut *self.state();
        (state.is_off, state.calls_to_cut, state.calls_to_error) = (false, None, None);
        state.has_writer = false;
        // Nothing, everything, or each piece by chance.
        let kept = state.random.below(4);
        let keep = |random: &mut Random| match kept {
            0 => false,
            1 => true,
            _ => random.toss_one_in(2),
        };
        for change in std::mem::take(&mut state.pending_names) {
            if keep(&mut state.random) {
                apply(&mut state.durable_names, &change);
            }
        }
        state.names = state.durable_names.clone();
        for content in &mut state.files {
            for (offset, bytes) in std::mem::take(&mut content.pending) {
                if keep(&mut state.random) {
                    overwrite(&mut content.durable, offset, &bytes);
                }
            }
            content.seen = content.durable.clone();
        }
    }

    /// Loses some of the files whose names fit, permanently.
    pub(super) fn lose(&self, random: &mut Random, fits: impl Fn(&str) -> bool) {
        let state = &mut *self.state();
        let names: Vec<String> = state.names.keys().filter(|name| fits(name)).cloned().collect();
        for name in names.into_iter().filter(|_| random.toss_one_in(2)) {
            state.names.remove(&name);
            state.durable_names.remove(&name);
            state.pending_names.iter_mut().for_each(|change| change.retain(|it| it.0 != name));
        }
    }

    /// Flips a bit in a file whose name fits. Returns the file and the offset.
    pub(super) fn flip(&self, fits: impl Fn(&str) -> bool) -> Option<(String, usize)> {
        let state = &mut *self.state();
        let names = state.names.iter().filter(|(name, _)| fits(name));
        let found: Vec<(String, usize)> = names.map(|(name, it)| (name.clone(), *it)).collect();
        let (name, file) = &found[state.random.below(found.len() as u64) as usize];
        let content = &mut state.files[*file];
        // Most of a file is zeros that were never used, where a flip is least interesting.
        let used = content.seen.iter().rposition(|byte| *byte != 0)? as u64 + 9;
        let at = state.random.below(used.min(content.seen.len() as u64)) as usize;
        let bit = 1 << state.random.below(8);
        content.seen[at] ^= bit;
        overwrite(&mut content.durable, at, &[content.seen[at]]);
        Some((name.clone(), at))
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: &[(String, Option<usize>)]) {
    for (name, file) in change {
        match file {
            Some(file) => names.insert(name.clone(), *file),
            None => names.remove(name),
        };
    }
}

impl State {
    /// Counts a call. The error: the power is off, or the call is refused.
    fn call(&mut self) -> io::Result<()> {
        if self.is_off {
            return Err(no_power());
        }
        if let Some(calls) = &mut self.calls_to_cut {
            if *calls == 0 {
                self.is_off = true;
                return Err(no_power());
            }
            *calls -= 1;
        }
        if let Some(calls) = &mut self.calls_to_error {
            if *calls == 0 {
                self.calls_to_error = None;
                return Err(io::Error::other("input/output error"));
            }
            *calls -= 1;
        }
        Ok(())
    }

    fn change_names(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.pending_names.push(change);
    }

    fn write(&mut self, file: usize, bytes: &[u8], offset: usize) -> io::Result<()> {
        let called = self.call();
        let content = &mut self.files[file];
        let growth = (offset + bytes.len()).saturating_sub(content.seen.len()) as u64;
        let is_full = self.room.is_some_and(|room| growth > room);
        // A failed write may have been done in part.
        let done = if called.is_err() || is_full {
            self.random.below(bytes.len() as u64 + 1) as usize
        } else {
            bytes.len()
        };
        if let Some(room) = &mut self.room {
            *room = room.saturating_sub(growth);
        }
        let mut at = offset;
        let mut rest = &bytes[..if is_full { 0 } else { done }];
        overwrite(&mut content.seen, offset, rest);
        while !rest.is_empty() {
            let piece = rest.len().min(SECTOR - at % SECTOR);
            content.pending.push((at, rest[..piece].to_vec()));
            (at, rest) = (at + piece, &rest[piece..]);
        }
        called?;
        if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self, file: usize) -> io::Result<()> {
        let called = self.call();
        if self.syncs == Syncs::Ignored {
            return called;
        }
        let content = &mut self.files[file];
        if called.is_err() && self.is_off {
            return called;
        }
        // After a failed sync, the system forgets what it had not written, but still shows it.
        for (offset, bytes) in std::mem::take(&mut content.pending) {
            if called.is_ok() || self.random.toss_one_in(2) {
                overwrite(&mut content.durable, offset, &bytes);
            }
        }
        called
    }
}

#[derive(Debug)]
struct SimFolder {
    disk: SimDisk,
    prefix: String,
}

impl SimFolder {
    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn file(&self, file: usize) -> Arc<dyn File> {
        Arc::new(SimFile { disk: self.disk.clone(), file })
    }
}

impl Files for SimFolder {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.disk.state();
        state.call()?;
        let file = state.names.get(&self.name(name)).copied();
        file.map(|file| self.file(file)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.disk.state();
        state.call()?;
        if let Some(file) = state.names.get(&self.name(name)).copied() {
            // The file is empty at once, which is harsher than a real disk.
            state.files[file] = Content::default();
            return Ok(self.file(file));
        }
        state.files.push(Content::default());
        let file = state.files.len() - 1;
        state.change_names(vec![(self.name(name), Some(file))]);
        Ok(self.file(file))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.disk.state();
        state.call()?;
        let names = state.names.keys().filter_map(|name| name.strip_prefix(&self.prefix));
        Ok(names.map(Into::into).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.disk.state();
        let called = state.call();
        // If it was refused or cut off, it may still have been done.
        if called.is_err() && !state.random.toss_one_in(2) {
            return called;
        }
        let Some(file) = state.names.get(&self.name(from)).copied() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        state.change_names(vec![(self.name(from), None), (self.name(to), Some(file))]);
        called
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.disk.state();
        state.call()?;
        if !state.names.contains_key(&self.name(name)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_names(vec![(self.name(name), None)]);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.call()?;
        let is_first = std::mem::take(&mut state.is_opening);
        let is_in =
            |name: &str| name.strip_prefix(&self.prefix).is_some_and(|it| !it.contains('/'));
        let is_of_it = |change: &Change| change.iter().any(|(name, _)| is_in(name));
        let newest = state.pending_names.iter().rfind(|change| is_of_it(change));
        let is_ignored = match state.syncs {
            Syncs::Honoured => false,
            Syncs::Ignored => true,
            Syncs::NamesIgnoredAtOpening => is_first,
            Syncs::NamesIgnoredAtRolling => {
                newest.is_some_and(|change| change.iter().any(|it| it.0.ends_with(".log")))
            }
        };
        if is_ignored {
            return Ok(());
        }
        let State { pending_names, durable_names, .. } = &mut *state;
        // Only names of this folder; a move between folders is part of both.
        pending_names.retain(|change| {
            if is_of_it(change) {
                apply(durable_names, change);
            }
            !is_of_it(change)
        });
        Ok(())
    }

    fn moved_from(&self) -> Option<PathBuf> {
        None
    }

    fn has_writer(&self) -> io::Result<bool> {
        let mut state = self.disk.state();
        state.call()?;
        Ok(state.has_writer)
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl File for SimFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.call()?;
        let State { files, random, .. } = &mut *state;
        let rest = files[self.file].seen.get(offset as usize..).unwrap_or(&[]);
        let mut len = rest.len().min(into.len());
        // Short reads are allowed, so they occur.
        if len > 1 && random.toss_one_in(8) {
            len = 1 + random.below(len as u64 - 1) as usize;
        }
        into[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.state().write(self.file, bytes, offset as usize)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.state().sync(self.file)
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.call()?;
        Ok(state.files[self.file].seen.len() as u64)
    }

    fn names(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.call()?;
        Ok(state.names.values().filter(|file| **file == self.file).count() as u64)
    }
}
