//! The journal on a disk that loses what was not synced. Thousands of short lives from one seed
//! each meet power cuts, refused calls and full disks. After each, everything that can be read is
//! compared with a model.

mod beside;
mod disk;
mod life;
mod model;
mod repair;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub(crate) use disk::Random;
use disk::Syncs;
use life::{Troubles, live};

/// The segments of a closed journal, each with its name.
pub(crate) fn segments(seed: u64) -> Vec<(String, Vec<u8>)> {
    let (world, _) = repair::journal(seed);
    let folder = world.disk.folder(crate::place::LOG);
    let mut names = folder.list().expect("the disk is well");
    names.retain(|name| name.ends_with(".log"));
    names.sort();
    let read = |name: &String| folder.open(name).and_then(|file| file.read_all());
    names.iter().map(|name| (name.clone(), read(name).expect("the disk is well"))).collect()
}

/// The number of lives in a test: more in an optimised build, and in a full run.
fn lives(debug: u64, release: u64) -> u64 {
    let asked = std::env::var("FACTUM_SIMULATION_LIVES").ok().and_then(|it| it.parse().ok());
    asked.unwrap_or(if cfg!(debug_assertions) { debug } else { release })
}

/// The first seed. A failure prints the seed that repeats it alone.
fn first_seed() -> u64 {
    std::env::var("FACTUM_SIMULATION_SEED").ok().and_then(|it| it.parse().ok()).unwrap_or(1)
}

fn run(count: u64, troubles: Troubles) {
    let mut rewritten = 0;
    for seed in first_seed()..first_seed() + count {
        match catch_unwind(AssertUnwindSafe(|| live(seed, troubles))) {
            Ok(count) => rewritten += count,
            Err(panic) => {
                let again = "FACTUM_SIMULATION_SEED and FACTUM_SIMULATION_LIVES=1 repeat it";
                eprintln!("the life of seed {seed} failed with {troubles:?}; {again}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    // A single life may have no rewrite.
    assert!(count < 40 || rewritten > count / 8, "only {rewritten} segments were rewritten");
}

#[test]
fn nothing_acknowledged_is_lost_by_power_cuts() {
    run(lives(400, 6_000), Troubles { power: true, ..Troubles::default() });
}

#[test]
fn nothing_acknowledged_is_lost_by_refused_calls() {
    run(lives(400, 6_000), Troubles { errors: true, ..Troubles::default() });
}

#[test]
fn nothing_acknowledged_is_lost_by_refused_calls_and_power_cuts() {
    run(lives(400, 6_000), Troubles { power: true, errors: true, ..Troubles::default() });
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    run(lives(300, 3_000), Troubles { full: true, power: true, ..Troubles::default() });
}

#[test]
fn flipped_bits_are_reported_and_never_read() {
    run(lives(400, 6_000), Troubles { flips: true, ..Troubles::default() });
}

#[test]
fn who_reads_beside_the_writer_sees_what_is_acknowledged() {
    run(lives(200, 2_000), Troubles { follows: true, ..Troubles::default() });
}

/// Returns whether this many of the lives fail.
fn do_fail(count: usize, lives: u64, syncs: Syncs) -> bool {
    let troubles = Troubles { power: true, syncs, ..Troubles::default() };
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let failed = (1..=lives).filter(|seed| catch_unwind(|| live(*seed, troubles)).is_err());
    let failed = failed.take(count).count();
    std::panic::set_hook(hook);
    failed == count
}

/// Proves that the simulation can fail: without syncs it must see losses.
#[test]
fn without_syncs_the_simulation_sees_the_loss() {
    assert!(do_fail(10, 40, Syncs::Ignored), "no sync at all");
    assert!(do_fail(5, 40, Syncs::NamesIgnoredAtRolling), "the name of a new segment");
    // The process must be killed just before that sync, and the power cut later.
    assert!(do_fail(1, 3_000, Syncs::NamesIgnoredAtOpening), "names that an opening sees");
}
