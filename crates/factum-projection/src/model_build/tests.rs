use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn build(version: u32, generation: u32) -> Build {
    Build { version, generation }
}

#[test]
fn a_newer_version_builds_and_is_swapped_in_and_the_old_one_is_kept() {
    let mut builds = Builds::first(1, 1);
    builds.start(1, 1);
    assert_eq!(builds, Builds::first(1, 1));
    builds.start(2, 1);
    builds.start(2, 1);
    assert_eq!((builds.serving, builds.building), (build(1, 0), Some(build(2, 0))));
    builds.swap(build(2, 0)).unwrap();
    assert_eq!((builds.serving, builds.previous), (build(2, 0), Some(build(1, 0))));
    assert_eq!(builds.swap(build(2, 0)), Err(Refusal::Superseded(build(2, 0))));
}

#[test]
fn a_version_that_was_rolled_back_is_not_built_again_by_a_start() {
    let mut builds = Builds::first(1, 1);
    builds.start(2, 1);
    builds.swap(build(2, 0)).unwrap();
    assert_eq!(builds.roll_back(), Ok(build(1, 0)));
    builds.start(2, 1);
    assert_eq!(builds.building, None);
    assert_eq!(builds.roll_back(), Ok(build(2, 0)), "and forward again");
}

/// The earlier build is dropped when a stream is deleted.
#[test]
fn a_version_that_was_rolled_back_is_not_built_again_after_its_build_was_dropped() {
    let mut builds = Builds::first(1, 1);
    builds.start(2, 1);
    builds.swap(build(2, 0)).unwrap();
    builds.roll_back().unwrap();
    builds.discard_old().unwrap();
    builds.start(2, 1);
    assert_eq!(builds.building, None);
    builds.start(3, 1);
    assert_eq!(builds.building, Some(build(3, 0)), "a larger version is built");
}

#[test]
fn an_older_program_changes_nothing_and_a_newer_one_takes_over() {
    let mut builds = Builds::first(2, 1);
    builds.start(1, 1);
    assert_eq!(builds.building, None);
    builds.start(3, 1);
    builds.start(2, 1);
    assert_eq!(builds.building, Some(build(3, 0)));
    builds.start(4, 1);
    assert_eq!(builds.building, Some(build(4, 0)));
    assert_eq!(builds.dropped, [build(3, 0)]);
}

#[test]
fn a_build_is_shown_with_its_generation_where_it_is_not_the_first_of_its_version() {
    assert_eq!([build(2, 0).to_string(), build(2, 7).to_string()], ["2", "2.7"]);
}

#[test]
fn the_partitions_of_a_build_are_known_until_it_is_cleared() {
    let mut builds = Builds::first(1, 4);
    builds.start(2, 1);
    builds.swap(build(2, 0)).unwrap();
    assert_eq!(builds.begin(2, 8), Ok(build(2, 1)));
    let counts = |builds: &Builds| {
        [build(1, 0), build(2, 0), build(2, 1)].map(|build| builds.partitions(build))
    };
    assert_eq!(counts(&builds), [4, 1, 8]);
    // Builds with one partition are not in the list.
    assert_eq!(builds.partitions.len(), 2);
    assert_eq!(builds.discard_old(), Ok(build(1, 0)));
    builds.cancel(build(2, 1)).unwrap();
    assert_eq!(builds.dropped, [build(1, 0), build(2, 1)]);
    builds.remove_cleared(build(1, 0));
    assert_eq!((counts(&builds), &builds.dropped[..]), ([1, 1, 8], &[build(2, 1)][..]));
}

#[test]
fn only_the_build_that_is_under_way_is_cancelled() {
    let mut builds = Builds::first(1, 1);
    builds.start(2, 1);
    assert_eq!(builds.cancel(build(1, 0)), Err(Refusal::Superseded(build(1, 0))));
    assert_eq!(builds.building, Some(build(2, 0)));
    builds.cancel(build(2, 0)).unwrap();
    assert_eq!((builds.building, &builds.dropped[..]), (None, &[build(2, 0)][..]));
}

#[test]
fn the_serving_build_and_the_one_before_are_kept_and_no_other() {
    let mut builds = Builds::first(1, 1);
    for version in [2, 3] {
        builds.start(version, 1);
        builds.swap(build(version, 0)).unwrap();
    }
    builds.start(4, 1);
    let kept = [1, 2, 3, 4].map(|version| builds.keeps(build(version, 0)));
    assert_eq!(kept, [false, true, true, false]);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Start(u32),
    Begin(u32),
    Swap,
    Cancel,
    RollBack,
    Discard,
    Reset(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..5u32).prop_map(Step::Start),
        (1..5u32).prop_map(Step::Begin),
        Just(Step::Swap),
        Just(Step::Cancel),
        Just(Step::RollBack),
        Just(Step::Discard),
        (1..5u32).prop_map(Step::Reset),
    ]
}

proptest! {
    #[test]
    fn a_build_has_one_place_and_is_never_made_twice(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut builds = Builds::first(1, 1);
        let mut made = HashSet::from([builds.serving]);
        for step in steps {
            let building = builds.building;
            match step {
                Step::Start(version) => builds.start(version, 1),
                Step::Begin(version) => {
                    let _ = builds.begin(version, 1);
                }
                Step::Swap => building.map_or((), |it| builds.swap(it).unwrap()),
                Step::Cancel => building.map_or((), |it| builds.cancel(it).unwrap()),
                Step::RollBack => {
                    let _ = builds.roll_back();
                }
                Step::Discard => {
                    let _ = builds.discard_old();
                }
                Step::Reset(version) => {
                    prop_assert!(made.insert(builds.reset(version, 1)));
                }
            }
            if builds.building != building
                && let Some(begun) = builds.building
            {
                prop_assert!(made.insert(begun), "{begun} is made again");
            }
            let places = [builds.building, builds.previous, Some(builds.serving)];
            let all: Vec<_> = places.into_iter().flatten().chain(builds.dropped.clone()).collect();
            let one_each: HashSet<_> = all.iter().copied().collect();
            prop_assert_eq!(all.len(), one_each.len());
            prop_assert_eq!(one_each, made.clone(), "none is lost before it is cleared");
        }
    }
}
