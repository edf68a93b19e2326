//! What happens in a life beside the writer: segments are rewritten, the index is lost, somebody
//! reads.

use std::cell::Cell;

use factum_core::StoreErrorKind;

use super::{
    life::{Life, assert_same},
    model::Model,
    world::{Look, Open},
};
use crate::{error, follower::LogFollower};

impl Life {
    /// Some of the index is lost, and must be made anew from the log, rewritten or not.
    pub(super) fn lose_runs(&mut self) {
        if self.random.is_one_in(4) {
            self.world.disk.lose(&mut self.random, |name| name.ends_with(".index"));
        }
    }

    /// Rewrites the segments in which it is worth it. Nothing that can be read changes by it,
    /// whatever comes in between.
    pub(super) fn rewrite(&mut self, open: &mut Open) -> bool {
        let log = &open.committer.log;
        // In the middle of it now and then, as when the store is closed.
        let calls = Cell::new(if self.random.is_one_in(6) { self.random.below(20) } else { 9_999 });
        let is_stopped = || {
            let left = calls.get();
            calls.set(left.saturating_sub(1));
            left == 0
        };
        match open.space.give_back(log, 0, &is_stopped) {
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

    /// Reads beside the writer: what there is now; or on with what there was at the last look, as a
    /// page does that began then. An event of it may have been left out since, and nothing else.
    pub(super) fn follow(&mut self) -> bool {
        let is_new = self.reader.is_none();
        let (follower, seen) = self.reader.get_or_insert_with(|| {
            let files = self.world.disk.folder("log");
            let top = self.world.disk.top();
            (LogFollower::open(top, files).expect("it opens beside a writer"), Model::default())
        });
        if is_new || self.random.is_one_in(2) {
            follower.refresh().expect("it reads on");
            *seen = Model { documents: Default::default(), ..self.known.clone() };
        }
        // The files that it has open are as they were then; those that it opens, as they are now.
        if self.random.is_one_in(2) {
            follower.log.forget_all();
        }
        match Look(&follower.log).observe(&self.streams) {
            Ok(found) => assert_same(&found, seen),
            Err(error) => assert!(error::is_left_out(&error), "{error:?}"),
        }
        true
    }
}
