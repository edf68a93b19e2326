//! The states of all streams in little memory: the key is a keyed hash of 128 bits instead of the
//! name.

use std::hash::{BuildHasher, RandomState};

use factum_kernel::{StreamBounds, StreamVersion};
use hashbrown::HashMap;

use crate::record::StreamState;

/// A stream's name, hashed with two random keys. Among ten million streams, the probability that
/// two share a hash is below 10^-24.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct StreamKey(u64, u64);

/// The states of all streams. An entry has 24 bytes, or 29 to 57 with the table's free slots; twice
/// that for a stream that lost events to a rewrite. While a table grows, the old one is in memory
/// as well.
#[derive(Debug, Default)]
pub(super) struct Streams {
    hashers: [RandomState; 2],
    versions: HashMap<StreamKey, StreamVersion>,
    /// The versions before a gap in the log. They may have gone on inside the gap.
    before_gap: HashMap<StreamKey, StreamVersion>,
    has_gap: bool,
    /// The rest of the state of streams with a deletion, a truncation or a retention.
    others: HashMap<StreamKey, StreamState>,
    /// The highest left-out version of each stream that lost events to a rewrite.
    left_out: HashMap<StreamKey, StreamVersion>,
}

impl Streams {
    pub(super) fn key(&self, stream: &str) -> StreamKey {
        let [one, other] = &self.hashers;
        StreamKey(one.hash_one(stream), other.hash_one(stream))
    }

    /// The number of streams.
    pub(super) fn len(&self) -> u64 {
        let before = self.before_gap.keys().filter(|key| !self.versions.contains_key(*key));
        (self.versions.len() + before.count()) as u64
    }

    /// Records that a part of the log is missing here.
    pub(super) fn pass_gap(&mut self) {
        self.has_gap = true;
        for (key, version) in self.versions.drain() {
            self.before_gap.insert(key, version);
        }
    }

    /// Adds an event. The error is the version that it should have.
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

    /// Adds a change.
    pub(super) fn change(&mut self, key: StreamKey, state: StreamState) {
        // The records of a rewritten segment may be ahead of a change.
        self.reach(key, state.bounds.version);
        let version_only = StreamBounds { version: state.bounds.version, ..Default::default() };
        if state == (StreamState { bounds: version_only, ..Default::default() }) {
            self.others.remove(&key);
        } else {
            self.others.insert(key, state);
        }
    }

    /// Records that events up to a version were left out of a rewritten segment.
    pub(super) fn leave_out(&mut self, key: StreamKey, version: StreamVersion) {
        self.reach(key, version);
        let through = self.left_out.entry(key).or_default();
        *through = version.max(*through);
    }

    fn reach(&mut self, key: StreamKey, version: StreamVersion) {
        let there = self.versions.entry(key).or_default();
        *there = version.max(*there);
    }

    /// The highest version of a stream that rewritten segments left out so far.
    pub(super) fn left_out_through(&self, key: StreamKey) -> StreamVersion {
        self.left_out.get(&key).copied().unwrap_or_default()
    }

    /// Returns whether any event was left out.
    pub(super) fn has_left_out(&self) -> bool {
        !self.left_out.is_empty()
    }

    /// Returns whether more was left out of any stream than is erased.
    pub(super) fn has_orphans(&self) -> bool {
        self.left_out.iter().any(|(key, version)| *version > self.erased_through(*key))
    }

    /// The state of a stream by its events and changes; `None` if it has none.
    pub(super) fn state(&self, key: StreamKey) -> Option<StreamState> {
        let version = *self.versions.get(&key)?;
        let mut state = self.others.get(&key).copied().unwrap_or_default();
        state.bounds.version = version;
        Some(state)
    }

    /// The version up to which a stream's events are erased.
    pub(super) fn erased_through(&self, key: StreamKey) -> StreamVersion {
        self.others.get(&key).map_or(StreamVersion::ZERO, |state| state.bounds.erased_through)
    }

    /// The version up to which events are erased, for every stream with an erased event.
    pub(super) fn all_erased(&self) -> HashMap<StreamKey, StreamVersion> {
        let states = self.others.iter().map(|(key, state)| (*key, state.bounds.erased_through));
        states.filter(|(_, through)| *through > StreamVersion::ZERO).collect()
    }
}
