//! How every stream is, in little memory: under a keyed hash of 128 bits instead of its name.

use std::hash::{BuildHasher, RandomState};

use factum_kernel::{StreamBounds, StreamVersion};
use hashbrown::HashMap;

use crate::record::StreamState;

/// A stream's name, hashed by two keys that nobody knows. Among ten million streams two are taken
/// for one with a probability below 10^-24.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct StreamKey(u64, u64);

/// How every stream is. An entry has 24 bytes, and 29 to 57 with the table's free places, twice
/// that of a stream that lost events to a rewriting; while a table grows, the old one is there as
/// well.
#[derive(Debug, Default)]
pub(super) struct Streams {
    hashers: [RandomState; 2],
    versions: HashMap<StreamKey, StreamVersion>,
    /// As they were before a gap in the log: their versions may have gone on in it.
    before_gap: HashMap<StreamKey, StreamVersion>,
    has_gap: bool,
    /// Of streams with a deletion, a truncation or a retention, what else there is.
    others: HashMap<StreamKey, StreamState>,
    /// Of streams that lost events to a rewriting: up to which version.
    left_out: HashMap<StreamKey, StreamVersion>,
}

impl Streams {
    pub(super) fn key(&self, stream: &str) -> StreamKey {
        let [one, other] = &self.hashers;
        StreamKey(one.hash_one(stream), other.hash_one(stream))
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        let before = self.before_gap.keys().filter(|key| !self.versions.contains_key(*key));
        (self.versions.len() + before.count()) as u64
    }

    /// A stretch of the log is missing here.
    pub(super) fn pass_gap(&mut self) {
        self.has_gap = true;
        for (key, version) in self.versions.drain() {
            self.before_gap.insert(key, version);
        }
    }

    /// Takes note of an event. The error: the version that it should have.
    pub(super) fn add_event(
        &mut self,
        key: StreamKey,
        version: StreamVersion,
    ) -> Result<(), StreamVersion> {
        let before = self.versions.insert(key, version);
        if let Some(before) = before {
            return if version == before.next() { Ok(()) } else { Err(before.next()) };
        }
        let least = self.before_gap.get(&key).copied().unwrap_or_default().next();
        let is_next = version == least || (self.has_gap && version > least);
        if is_next { Ok(()) } else { Err(least) }
    }

    /// Takes note of a change.
    pub(super) fn change(&mut self, key: StreamKey, state: StreamState) {
        // What a rewritten segment told of may be ahead of a change.
        self.reach(key, state.bounds.version);
        let version_only = StreamBounds { version: state.bounds.version, ..Default::default() };
        if state == (StreamState { bounds: version_only, ..Default::default() }) {
            self.others.remove(&key);
        } else {
            self.others.insert(key, state);
        }
    }

    /// Takes note that events up to a version were left out of a rewritten segment.
    pub(super) fn leave_out(&mut self, key: StreamKey, version: StreamVersion) {
        self.reach(key, version);
        let through = self.left_out.entry(key).or_default();
        *through = version.max(*through);
    }

    fn reach(&mut self, key: StreamKey, version: StreamVersion) {
        let there = self.versions.entry(key).or_default();
        *there = version.max(*there);
    }

    /// Up to which version events of a stream were left out of rewritten segments so far.
    pub(super) fn left_out_through(&self, key: StreamKey) -> StreamVersion {
        self.left_out.get(&key).copied().unwrap_or_default()
    }

    /// Whether anything was left out anywhere.
    pub(super) fn has_left_out(&self) -> bool {
        !self.left_out.is_empty()
    }

    /// Whether more was left out anywhere than is erased.
    pub(super) fn has_orphans(&self) -> bool {
        self.left_out.iter().any(|(key, version)| *version > self.erased_through(*key))
    }

    /// How a stream is by its events and changes; `None` if there is none of it.
    pub(super) fn state(&self, key: StreamKey) -> Option<StreamState> {
        let version = *self.versions.get(&key)?;
        let mut state = self.others.get(&key).copied().unwrap_or_default();
        state.bounds.version = version;
        Some(state)
    }

    /// Up to which version a stream's events are erased.
    pub(super) fn erased_through(&self, key: StreamKey) -> StreamVersion {
        self.others.get(&key).map_or(StreamVersion::ZERO, |state| state.bounds.erased_through)
    }

    /// The same for every stream of which anything is erased, as it is now.
    pub(super) fn all_erased(&self) -> HashMap<StreamKey, StreamVersion> {
        let states = self.others.iter().map(|(key, state)| (*key, state.bounds.erased_through));
        states.filter(|(_, through)| *through > StreamVersion::ZERO).collect()
    }
}
