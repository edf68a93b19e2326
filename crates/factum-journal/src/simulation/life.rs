//! One life of a journal: work, trouble, reopening and comparison, repeated.

use std::sync::{Arc, Mutex};

use factum_backend::{Commit, CommitError, ends_group};
use factum_kernel::{
    AppendBatch, ChangeError, Content, EventName, ExpectedRevision, ExpectedVersion, NewEvent,
    Retention, Revision, StoreErrorKind, StreamChange, StreamId, StreamVersion, Tag, Timestamp,
    WriteBatch, WriteError,
};
use factum_testing::VirtualClock;

use super::{
    disk::{Random, SimDisk, Syncs},
    model::Model,
    world::{Open, SeededIds, World},
};
use crate::{
    follower::LogFollower,
    recovery::Founded,
    seal::{merge_step, seal_step},
    verify::look,
};

/// The troubles of a life.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Troubles {
    pub(super) power: bool,
    pub(super) errors: bool,
    pub(super) full: bool,
    pub(super) flips: bool,
    /// Not a trouble: a reader follows the writer.
    pub(super) follows: bool,
    pub(super) syncs: Syncs,
}

/// The number of openings in a life.
const OPENINGS: u64 = 4;
/// The most steps between two openings.
const STEPS: u64 = 40;

pub(super) struct Life {
    pub(super) random: Random,
    pub(super) troubles: Troubles,
    pub(super) world: World,
    pub(super) streams: Vec<StreamId>,
    /// Everything that was acknowledged.
    pub(super) known: Model,
    /// The model with the write that was under way when the trouble came, which may be there or
    /// not.
    pub(super) possible: Option<Model>,
    pub(super) founded: Founded,
    /// The number of segments that were rewritten.
    pub(super) rewritten: u64,
    /// The reader beside the writer, and what was acknowledged at its last look.
    pub(super) reader: Option<(LogFollower, Model)>,
}

/// Lives one life. Panics if anything differs from what was acknowledged. Returns the number of
/// rewritten segments.
pub(super) fn live(seed: u64, troubles: Troubles) -> u64 {
    let world = World {
        disk: SimDisk::new(seed, troubles.syncs),
        clock: VirtualClock::new(Timestamp::from_micros(1_000_000_000)),
        ids: Arc::new(SeededIds(Mutex::new(Random::new(seed ^ 0x1d5)))),
    };
    let streams = (0..6).map(|n| {
        StreamId::new(if n % 2 == 0 { "account" } else { "order" }, &format!("s{n}")).unwrap()
    });
    let mut life = Life {
        random: Random::new(seed),
        troubles,
        world,
        streams: streams.collect(),
        known: Model::default(),
        possible: None,
        founded: Founded::Never,
        rewritten: 0,
        reader: None,
    };
    for _ in 0..OPENINGS {
        life.open_and_work();
    }
    life.settle();
    life.rewritten
}

impl Life {
    fn open_and_work(&mut self) {
        let mut open = self.reopen();
        if self.troubles.power && !self.random.toss_one_in(4) {
            self.world.disk.cut_after(self.random.below(160));
        }
        if self.troubles.errors {
            self.world.disk.refuse_after(Some(self.random.below(120)));
        }
        if self.troubles.full {
            self.world.disk.limit(Some(self.random.below(64 << 10)));
        }
        for _ in 0..self.random.below(STEPS) {
            if !self.step(&mut open) {
                break;
            }
        }
        self.world.disk.limit(None);
        self.end(open);
    }

    /// Closes or drops the journal, and lets the trouble take effect.
    fn end(&mut self, open: Open) {
        let is_clean = self.random.toss_one_in(2);
        if !is_clean && !self.world.disk.is_off() {
            // As when the process is killed: the system has its writes, and no mark is at the end.
            open.kill();
        } else {
            open.close();
        }
        self.world.disk.refuse_after(None);
        let is_cut = self.troubles.power && self.random.toss_one_in(2);
        if self.world.disk.is_off() || is_cut {
            self.go_on();
        }
        if self.troubles.flips && is_clean {
            self.flip();
        }
        // Not with flips, which are for finding damage: runs are rebuilt from the log.
        if !self.troubles.flips {
            self.lose_runs();
        }
    }

    /// Continues after the end of a process: either the power was cut, or only the process ended.
    fn go_on(&mut self) {
        match self.random.toss_one_in(3) {
            true => self.world.disk.revive(),
            false => self.world.disk.restart(),
        }
    }

    /// Opens the journal, possibly against more trouble, and compares.
    fn reopen(&mut self) -> Open {
        loop {
            self.verify();
            self.read_alone();
            let trouble = self.random.toss_one_in(3);
            if trouble && self.troubles.power {
                self.world.disk.cut_after(self.random.below(40));
            }
            if trouble && self.troubles.errors {
                self.world.disk.refuse_after(Some(self.random.below(40)));
            }
            let opened = self.world.open(self.founded);
            self.world.disk.refuse_after(None);
            if self.world.disk.is_off() {
                drop(opened);
                self.go_on();
                continue;
            }
            match opened {
                Ok(open) => {
                    // Nothing interrupts the comparison.
                    self.world.disk.cut_after(u64::MAX);
                    self.compare(&open);
                    self.founded = Founded::Before;
                    return open;
                }
                Err(error) => {
                    let is_trouble = self.troubles.errors
                        && trouble
                        && error.kind() == StoreErrorKind::Unavailable;
                    assert!(is_trouble, "does not open: {error:?}");
                }
            }
        }
    }

    /// Checks that nothing that happened counts as damage.
    fn verify(&self) {
        if self.founded == Founded::Before && !self.troubles.flips {
            // On a copy of the disk, without the trouble that is still to come.
            let disk = self.world.disk.fork();
            disk.revive();
            let found = look(&disk.folders(), true, &mut |_, _| {}).expect("it can be read");
            assert!(found.report.is_whole(), "{:#?}", found.report);
        }
    }

    fn compare(&mut self, open: &Open) {
        let found = open.observe(&self.streams).expect("everything can be read");
        let found = Model { revision: self.known.revision, ..found };
        let is_possible = self.is_possible(&found);
        if is_possible {
            self.known = self.possible.take().expect("it was just compared");
        }
        self.possible = None;
        if !is_possible {
            assert_same(&found, &self.known);
        }
    }

    /// Returns whether the write under way during the trouble was stored. Without a difference it
    /// can't be known.
    pub(super) fn is_possible(&self, found: &Model) -> bool {
        *found != self.known
            && self.possible.as_ref().is_some_and(|possible| {
                *found == Model { revision: found.revision, ..possible.clone() }
            })
    }

    /// Takes a step. Returns whether the journal can go on.
    fn step(&mut self, open: &mut Open) -> bool {
        self.world.clock.advance(std::time::Duration::from_millis(self.random.below(50)));
        let documents = open.documents.clone();
        match self.random.below(24) {
            0 => seal_step(&open.committer.log).is_ok() || !self.world.disk.is_off(),
            1 => merge_step(&open.committer.log, &|| false).is_ok() || !self.world.disk.is_off(),
            2 => {
                // If it can't be prepared, it is made when it is needed.
                let _ = open.committer.tail.spare.prepare(&*open.committer.log.files, 4 << 10);
                true
            }
            3 | 4 => self.change(open),
            5 | 6 => self.rewrite(open),
            7 | 8 if self.troubles.follows => self.follow(),
            9..=11 => documents.flush_step().is_ok() || !self.world.disk.is_off(),
            12 => documents.merge_step(&|| false).is_ok() || !self.world.disk.is_off(),
            13..=16 => self.write(open),
            _ => self.append(open),
        }
    }

    fn append(&mut self, open: &mut Open) -> bool {
        let mut batches: Vec<_> = (0..1 + self.random.below(3)).map(|_| self.batch()).collect();
        if let Some(last) = batches.iter().position(ends_group) {
            batches.truncate(last + 1);
        }
        let mut after = self.known.clone();
        after.append(&batches);
        match open.committer.commit(&batches) {
            Ok(committed) => {
                assert_eq!(committed.head.value() as usize, after.events.len());
                self.known = after;
                true
            }
            Err(CommitError::NotStored(error)) => self.goes_on(error.kind()),
            Err(CommitError::Unknown(_)) => {
                self.possible = Some(after);
                false
            }
        }
    }

    /// Returns whether the log goes on after an error that stored nothing. The power may be off, or
    /// the log may have stopped.
    fn goes_on(&self, kind: StoreErrorKind) -> bool {
        assert_eq!(kind, StoreErrorKind::Unavailable);
        let is_trouble = self.troubles.errors || self.troubles.full;
        assert!(self.world.disk.is_off() || is_trouble, "refused without a reason");
        !self.world.disk.is_off()
    }

    fn stream(&mut self) -> StreamId {
        self.streams[self.random.below(self.streams.len() as u64) as usize].clone()
    }

    fn batch(&mut self) -> AppendBatch {
        let one = self.stream();
        let other = self.stream();
        let version = self.known.bounds(&one).version.value();
        let expected = match self.random.below(6) {
            0 => ExpectedVersion::from(StreamVersion::new(version)),
            1 => ExpectedVersion::Exact(StreamVersion::new(version + 7)),
            _ => ExpectedVersion::Any,
        };
        let batch = match self.random.toss_one_in(8) {
            true => AppendBatch::new().delete(one.clone(), expected, self.world.id()),
            false => AppendBatch::new().write(one.clone(), expected, self.events()),
        };
        if other == one || self.random.toss_one_in(2) {
            return batch;
        }
        let batch = batch.write(other, ExpectedVersion::Any, self.events());
        if self.random.toss_one_in(2) {
            return batch;
        }
        batch.write(one, ExpectedVersion::Any, self.events())
    }

    fn events(&mut self) -> Vec<NewEvent> {
        (0..1 + self.random.below(3)).map(|_| self.event()).collect()
    }

    fn event(&mut self) -> NewEvent {
        const NAMES: [&str; 3] = ["account.opened", "account.money-deposited", "account.closed"];
        let name = EventName::from_static(NAMES[self.random.below(3) as usize]);
        let size = if self.random.toss_one_in(12) { 3_000 } else { 200 };
        let payload: Vec<u8> =
            (0..self.random.below(size)).map(|_| self.random.next() as u8).collect();
        NewEvent::new(self.world.id(), name, Content::Cbor, payload)
            .with_tag(Tag::new("parity", self.random.below(2)).unwrap())
    }

    fn change(&mut self, open: &mut Open) -> bool {
        let stream = self.stream();
        let bounds = self.known.bounds(&stream);
        let change = match self.random.below(3) {
            0 => {
                let events_max = Some(1 + self.random.below(4)).filter(|max| *max < 4);
                StreamChange::Retain(Retention { events_max, age_max: None })
            }
            _ => {
                let before = 1 + self.random.below(bounds.version.value());
                StreamChange::TruncateBefore(StreamVersion::new(before.min(bounds.version.value())))
            }
        };
        let mut after = self.known.clone();
        after.change(&stream, change);
        match open.committer.change(&stream, change) {
            Ok(info) => {
                self.known = after;
                assert_eq!(info.bounds, self.known.bounds(&stream), "{change:?}");
                true
            }
            Err(ChangeError::Store(error)) => self.goes_on(error.kind()),
            // Either not stored; or stored, but the answer could not be read.
            Err(_) => {
                self.possible = Some(after);
                false
            }
        }
    }

    /// Writes a group of documents.
    fn write(&mut self, open: &mut Open) -> bool {
        let batches: Vec<_> = (0..1 + self.random.below(3)).map(|_| self.documents()).collect();
        let next = open.documents.next_revision();
        assert!(next > self.known.revision, "a revision is given again");
        let outcomes = open.documents.commit(&batches.iter().collect::<Vec<_>>());
        assert_eq!(outcomes.len(), batches.len());
        let mut tried = Vec::new();
        let mut found = Vec::new();
        let mut is_unknown = false;
        let mut goes_on = true;
        for (batch, outcome) in batches.into_iter().zip(outcomes) {
            found.push(match outcome {
                Ok(revision) => Ok(revision.value()),
                Err(WriteError::Conflict { entry }) => Err(Some(entry)),
                Err(WriteError::Indeterminate(_)) => {
                    is_unknown = true;
                    Err(None)
                }
                // Either one write whose conditions could not be checked, or all of them.
                Err(WriteError::Store(error)) => {
                    goes_on = self.goes_on(error.kind());
                    continue;
                }
                Err(error) => panic!("{error:?}"),
            });
            tried.push(batch);
        }
        let mut after = self.known.clone();
        let wanted = after.write(&tried, next);
        if is_unknown {
            assert!(wanted.iter().all(Result::is_ok) && found.iter().all(|it| *it == Err(None)));
            self.possible = Some(after);
            return false;
        }
        assert!(found.into_iter().eq(wanted.into_iter().map(|it| it.map_err(Some))));
        self.known = after;
        goes_on
    }

    fn documents(&mut self) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for _ in 0..1 + self.random.below(3) {
            let key = format!("k{}", self.random.below(12));
            if batch.entries().iter().any(|entry| entry.key == key) {
                continue;
            }
            let known = self.known.documents.get(key.as_bytes()).map(|it| it.0);
            let known = known.unwrap_or_else(|| self.random.below(2));
            let expected = match self.random.below(8) {
                0 => ExpectedRevision::Absent,
                1 => ExpectedRevision::Exact(Revision::new(known)),
                _ => ExpectedRevision::Any,
            };
            batch = if self.random.toss_one_in(3) {
                batch.remove(key, expected)
            } else {
                let size = if self.random.toss_one_in(20) { 6_000 } else { 500 };
                let value = vec![self.random.next() as u8; self.random.below(size) as usize];
                batch.put(key, expected, value)
            };
        }
        batch
    }

    /// Flips a bit of a closed journal. After that, reads are right, or the damage is reported.
    fn flip(&mut self) {
        let is_ours =
            |name: &str| [".log", ".index", ".documents"].iter().any(|end| name.ends_with(end));
        let Some(place) = self.world.disk.flip(is_ours) else { return };
        self.lose_runs();
        let verified = look(&self.world.disk.fork().folders(), true, &mut |_, _| {});
        let is_whole = verified.expect("it can be read").report.is_whole();
        let damage = match self.world.open(self.founded) {
            Err(error) => Some(error),
            Ok(open) => {
                let found = open.observe(&self.streams);
                open.kill();
                match found {
                    Err(error) => Some(error),
                    Ok(found) => {
                        let found = Model { revision: self.known.revision, ..found };
                        assert_same(&found, &self.known);
                        None
                    }
                }
            }
        };
        if let Some(error) = damage {
            assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{place:?}: {error:?}");
            assert!(!is_whole, "{place:?}: {error:?}, and verifying does not see it");
            self.start_anew();
        }
    }

    /// Continues on another disk, because this one is damaged permanently.
    fn start_anew(&mut self) {
        self.world.disk = SimDisk::new(self.random.next(), self.troubles.syncs);
        (self.known, self.possible, self.founded) = (Model::default(), None, Founded::Never);
    }

    fn settle(&mut self) {
        self.reopen().close();
    }
}

/// Fails with the difference, not with everything there is.
pub(super) fn assert_same(found: &Model, known: &Model) {
    let pairs = found.events.iter().zip(&known.events);
    if let Some(index) = pairs.clone().position(|(found, known)| found != known) {
        let short = |model: &Model| {
            model.events[index].as_ref().map(|it| (it.stream.clone(), it.version, it.event.id))
        };
        let found = short(found);
        let known = short(known);
        panic!("at position {}: found {found:?}, acknowledged {known:?}", index + 1);
    }
    assert_eq!(found.events.len(), known.events.len(), "head");
    assert_eq!(found.streams, known.streams, "streams");
    assert_eq!(found.documents, known.documents, "documents");
}
