//! The work beside the writer in a life: rewrites, loss of the index, readers.

use std::cell::Cell;

use factum_kernel::StoreErrorKind;

use super::{
    life::{Life, assert_same},
    model::Model,
    world::{Look, Open, World, all_documents},
};
use crate::{
    error,
    follower::{DocumentFollower, LogFollower},
    place::{DOCUMENTS, LOG},
    recovery::Founded,
};

impl Life {
    /// Loses some of the index, which must then be rebuilt from the log, rewritten or not.
    pub(super) fn lose_runs(&mut self) {
        if self.random.toss_one_in(4) {
            self.world.disk.lose(&mut self.random, |name| name.ends_with(".index"));
        }
    }

    /// Rewrites the segments for which it is worth it. Whatever interrupts it, everything that can
    /// be read stays the same.
    pub(super) fn rewrite(&mut self, open: &mut Open) -> bool {
        let log = &open.committer.log;
        // It is sometimes stopped in the middle, as when the store is closed.
        let calls =
            Cell::new(if self.random.toss_one_in(6) { self.random.below(20) } else { 9_999 });
        let is_stopped = || {
            let left = calls.get();
            calls.set(left.saturating_sub(1));
            left == 0
        };
        match open.reclaimer.reclaim(log, 0, &is_stopped) {
            Ok(count) => {
                self.rewritten += count as u64;
                true
            }
            Err(error) => {
                let is_flipped = self.troubles.flips && error.kind() == StoreErrorKind::Corrupt;
                let is_refused = error.kind() == StoreErrorKind::Unavailable;
                assert!(is_flipped || is_refused, "{error:?}");
                !self.world.disk.is_off()
            }
        }
    }

    /// Reads while there is no writer. The reader must see all that is acknowledged, and nothing
    /// that a later power cut takes back.
    pub(super) fn read_alone(&self) {
        // Only one time in five, because it takes longer than the step before it.
        let is_turn = self.known.events.len().is_multiple_of(5);
        if self.founded == Founded::Never || self.troubles.flips || !is_turn {
            return;
        }
        // On a copy of the disk, without the trouble that is still to come.
        let world = World { disk: self.world.disk.fork(), ..self.world.clone() };
        world.disk.revive();
        let top = world.disk.top();
        let log = world.disk.folder(LOG);
        let documents = DocumentFollower::open(top.clone(), world.disk.folder(DOCUMENTS));
        let (follower, documents) = match (LogFollower::open(top, log), documents) {
            (Ok(log), Ok(documents)) => (log, documents.documents),
            // A sync failed during the opening.
            (Err(error), _) | (_, Err(error)) => {
                let is_refused = error.kind() == StoreErrorKind::Unavailable;
                assert!(self.troubles.errors && is_refused, "without a writer: {error:?}");
                return;
            }
        };
        let mut seen = Look(&follower.log).observe(&self.streams).expect("it is whole");
        seen.documents = all_documents(&documents).expect("they are whole");
        seen.revision = self.known.revision;
        if !self.is_possible(&seen) {
            assert_same(&seen, &self.known);
        }
        world.disk.restart();
        let open = world.open(self.founded).expect("it opens after a power cut");
        let kept = open.observe(&self.streams).expect("everything can be read");
        open.kill();
        let kept = Model { revision: seen.revision, ..kept };
        // The leftovers of a failed sync appear only with the next writer, which makes them
        // durable.
        if !self.is_possible(&kept) {
            assert_same(&kept, &seen);
        }
    }

    /// Reads beside the writer: either the current log, or on from the last look, like a page that
    /// began then. Only events that were left out since may be missing.
    pub(super) fn follow(&mut self) -> bool {
        let is_new = self.reader.is_none();
        let (follower, seen) = self.reader.get_or_insert_with(|| {
            let files = self.world.disk.folder(LOG);
            let top = self.world.disk.top();
            (LogFollower::open(top, files).expect("it opens beside a writer"), Model::default())
        });
        if is_new || self.random.toss_one_in(2) {
            follower.refresh().expect("it reads on");
            *seen = Model { documents: Default::default(), ..self.known.clone() };
        }
        // Files that it has open are as they were then; files that it opens are as they are now.
        if self.random.toss_one_in(2) {
            follower.log.forget_all();
        }
        match Look(&follower.log).observe(&self.streams) {
            Ok(found) => assert_same(&found, seen),
            Err(error) => assert!(error::is_left_out(&error), "{error:?}"),
        }
        true
    }
}
