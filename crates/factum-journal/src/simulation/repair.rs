//! Repairs that a power cut or a kill cuts off at each of their calls, and that another repair
//! finishes.

use std::collections::BTreeMap;

use factum_backend::Commit;
use factum_kernel::{
    ExpectedRevision, StoreError, StreamChange, StreamId, StreamVersion, Timestamp, WriteBatch,
};
use factum_testing::VirtualClock;

use super::{
    disk::{Random, SimDisk, Syncs},
    model::{Known, Model, ModelEvent},
    world::{SeededIds, World},
};
use crate::{
    documents::BEGIN,
    lineage,
    place::{DOCUMENTS, LOG},
    recovery::Founded,
    repair::{Plan, RepairFolder, look_well},
    seal::{merge_step, seal_step},
    synced::SYNCED,
    verify::look,
};

const BATCHES: u64 = 120;

/// The content of a journal, now and before.
pub(super) struct Held {
    /// Every event that was ever appended, then what is left of them.
    all: Vec<Option<ModelEvent>>,
    left: Vec<Option<ModelEvent>>,
    /// The documents at each revision.
    documents: BTreeMap<u64, Known>,
}

/// A closed journal, and its content: many segments, some of them rewritten, and documents in runs
/// and in their log.
pub(super) fn journal(seed: u64) -> (World, Held) {
    let world = World {
        disk: SimDisk::new(seed, Syncs::Honoured),
        clock: VirtualClock::new(Timestamp::from_micros(1_000_000_000)),
        ids: std::sync::Arc::new(SeededIds(std::sync::Mutex::new(Random::new(seed)))),
    };
    let mut open = world.open(Founded::Never).unwrap();
    let mut random = Random::new(seed);
    let mut model = Model::default();
    let mut all = Model::default();
    let mut documents = BTreeMap::from([(0, Known::new())]);
    for n in 0..BATCHES {
        let batch = world.batch(&format!("s{}", n % 5), 1 + random.below(600) as usize);
        for model in [&mut model, &mut all] {
            model.append(std::slice::from_ref(&batch));
        }
        open.committer.commit(&[batch]).unwrap();
        let key = format!("k{}", random.below(9));
        let value = vec![n as u8; random.below(300) as usize];
        let write = match random.toss_one_in(4) {
            true => WriteBatch::new().remove(key, ExpectedRevision::Any),
            false => WriteBatch::new().put(key, ExpectedRevision::Any, value),
        };
        let next = open.documents.next_revision();
        let written = open.documents.commit(&[&write]);
        model.write(std::slice::from_ref(&write), next);
        assert_eq!(written[0].as_ref().unwrap().value(), next);
        documents.insert(next, model.documents.clone());
        if n % 9 == 0 {
            while seal_step(&open.committer.log).unwrap() {}
            merge_step(&open.committer.log, &|| false).unwrap();
        }
        if n % 7 == 0 && random.toss_one_in(3) {
            let stream = StreamId::new("account", &format!("s{}", random.below(5))).unwrap();
            let last = model.bounds(&stream).version.value();
            let before = StreamVersion::new((1 + random.below(last)).min(last));
            let change = StreamChange::TruncateBefore(before);
            model.change(&stream, change);
            all.streams.clone_from(&model.streams);
            open.committer.change(&stream, change).unwrap();
        }
        if n % 11 == 0 {
            open.reclaimer.reclaim(&open.committer.log, 0, &|| false).unwrap();
        }
        if random.toss_one_in(3) {
            open.documents.flush_step().unwrap();
            open.documents.merge_step(&|| false).unwrap();
        }
    }
    drop(open);
    for part in [LOG, DOCUMENTS] {
        // The writer's recorded end reaches the disk at some time, and this is a later one.
        let folder = world.disk.folder(part);
        folder.open(SYNCED).and_then(|file| file.sync()).unwrap();
        folder.sync_names().unwrap();
    }
    (world, Held { all: all.events, left: model.events, documents })
}

/// Repairs. Returns the first position that was cut off, after a check of the log's end before.
fn repair(disk: &SimDisk, number: u64) -> Result<Option<u64>, StoreError> {
    let folders = disk.folders();
    let plan = Plan::new(&folders, look_well(&folders, &mut |_, _| {})?)?;
    if plan.is_nothing() {
        return Ok(None);
    }
    let name = format!("set-aside/{number}");
    let files = |inner: &str| disk.folder(&format!("{name}{inner}"));
    let top = files("");
    let log = files("/log");
    let documents = files("/documents");
    let aside = RepairFolder { name: name.clone(), top, log, documents };
    let lineage = plan.needs_lineage().then(lineage::new_lineage);
    plan.carry_out(&folders, &aside, lineage)?;
    Ok(plan.cut())
}

/// Checks that the rest is the beginning of the former content, is whole, and can grow. Returns the
/// number of its events and its revision.
fn check(world: &World, held: &Held, cut: Option<u64>) -> (u64, u64) {
    let found = look(&world.folders(), true, &mut |_, _| {}).unwrap();
    assert!(found.report.is_whole(), "{:#?}", found.report);
    let mut open = world.open(Founded::Before).unwrap();
    let streams: Vec<_> =
        (0..5).map(|n| StreamId::new("account", &format!("s{n}")).unwrap()).collect();
    let model = open.observe(&streams).unwrap();
    let left = model.events;
    for (index, event) in left.iter().enumerate() {
        let wanted = if event.is_some() { &held.all[index] } else { &held.left[index] };
        assert!(event == wanted, "position {}", index + 1);
    }
    if left.len() < held.all.len() {
        let renewed = lineage::renewed(&*world.disk.top()).unwrap();
        assert!(renewed.is_some(), "positions are given again without a new lineage");
    } else if lineage::renewed(&*world.disk.top()).unwrap().is_none() {
        assert!(left == held.left, "erased events came back");
    }
    if let Some(cut) = cut {
        assert_eq!(left.len() as u64 + 1, cut);
    }
    let next = open.documents.next_revision();
    assert!(model.documents == held.documents[&(next - 1)], "not as they once were");
    let batch = world.batch("later", 100);
    open.committer.commit(&[batch]).unwrap();
    assert_eq!(open.observe(&streams).unwrap().events.len(), left.len() + 1);
    let write = WriteBatch::new().put("later", ExpectedRevision::Any, "yes");
    open.documents.commit(&[&write]).pop().unwrap().unwrap();
    drop(open);
    let found = look(&world.folders(), true, &mut |_, _| {}).unwrap();
    assert!(found.report.is_whole(), "{:#?}", found.report);
    (left.len() as u64, next - 1)
}

/// Checks that every former segment is there, or was set aside unchanged.
fn nothing_is_gone(before: &SimDisk, after: &SimDisk) {
    let read = |disk: &SimDisk, folder: &str, name: &str| {
        disk.folder(folder).open(name).and_then(|file| file.read_all()).ok()
    };
    for part in [LOG, DOCUMENTS] {
        let names = before.folder(part).list().unwrap();
        let is_kept = |name: &&String| name.ends_with(".log") || name.ends_with(".documents");
        for name in names.iter().filter(is_kept) {
            let mut bytes = read(before, part, name).unwrap();
            // Erasures may have been recorded again after its end.
            bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            let places = ["", "set-aside/1/", "set-aside/2/"];
            let is_in = |place: &&str| {
                let there = read(after, &format!("{place}{part}"), name);
                there.is_some_and(|there| there.starts_with(&bytes))
            };
            assert!(places.iter().any(is_in), "{part}/{name} is gone");
        }
    }
}

/// Cuts a repair off after each number of calls until it completes, and finishes it.
fn cut_off_everywhere(damaged: &World, held: &Held, step: u64) {
    let whole = World { disk: damaged.disk.fork(), ..damaged.clone() };
    let cut = repair(&whole.disk, 1).unwrap();
    let left = check(&whole, held, cut);
    for calls in (0..).step_by(step as usize) {
        let world = World { disk: damaged.disk.fork(), ..damaged.clone() };
        world.disk.cut_after(calls);
        let ended = repair(&world.disk, 1);
        if !world.disk.is_off() {
            ended.unwrap();
            return;
        }
        if calls % 2 == 0 {
            world.disk.restart();
        } else {
            world.disk.revive();
        }
        repair(&world.disk, 2).unwrap();
        nothing_is_gone(&damaged.disk, &world.disk);
        let (events, revision) = check(&world, held, None);
        assert!(events >= left.0 && revision >= left.1, "the second repair took more");
    }
}

/// Damages a file: flips a bit, or removes it.
fn damage(world: &World, random: &mut Random, is_only: bool) {
    let part = *[LOG, LOG, DOCUMENTS].get(random.below(3) as usize).unwrap();
    let is_of = |name: &str| {
        let is_one = name.ends_with(".log") || name.ends_with(".documents");
        is_one || (part == LOG && name.ends_with(".index"))
    };
    if random.toss_one_in(3) {
        let folder = world.disk.folder(part);
        // Without this file and all runs, documents look like those of a version without runs.
        let fits = |name: &String| is_of(name) && (is_only || name != BEGIN);
        let names: Vec<_> = folder.list().unwrap().into_iter().filter(fits).collect();
        folder.remove(&names[random.below(names.len() as u64) as usize]).unwrap();
        folder.sync_names().unwrap();
    } else {
        let inside = format!("{part}/");
        assert!(world.disk.flip(|name| name.starts_with(&inside) && is_of(name)).is_some());
    }
}

#[test]
fn a_repair_that_was_cut_off_is_finished_by_another() {
    let (seeds, step) = if cfg!(debug_assertions) { (8, 11) } else { (60, 1) };
    for seed in 1..=seeds {
        let (world, held) = journal(seed);
        damage(&world, &mut Random::new(seed), true);
        cut_off_everywhere(&world, &held, step);
    }
}

/// Each damage has a journal of its own, and is done once.
#[test]
fn every_damage_is_repaired_to_what_once_was() {
    let seeds = if cfg!(debug_assertions) { 60 } else { 3_000 };
    let mut counts = [0; 3];
    for seed in 1_000..1_000 + seeds {
        let (world, held) = journal(seed);
        let before = look(&world.folders(), true, &mut |_, _| {}).unwrap();
        assert!(before.report.is_whole(), "seed {seed}: {:#?}", before.report);
        let mut random = Random::new(seed);
        let count = 1 + random.below(2);
        (0..count).for_each(|_| damage(&world, &mut random, count == 1));
        let found = look(&world.folders(), true, &mut |_, _| {}).unwrap().report;
        // Shown if the test fails.
        println!("seed {seed}: {:#?} {:?}", found.damages, found.torn);
        let cut = repair(&world.disk, 1).unwrap();
        let (events, revision) = check(&world, &held, cut);
        counts[0] += u64::from(events < held.all.len() as u64);
        counts[1] += u64::from(revision < *held.documents.keys().last().unwrap());
        counts[2] += before.report.erased;
    }
    assert!(counts.iter().all(|count| *count > seeds / 8), "{counts:?}");
}
