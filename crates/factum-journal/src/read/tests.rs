use factum_backend::{Commit, Facts, Precheck, Walk};
use factum_kernel::{
    AppendBatch, AppendCondition, Category, Content, EventId, EventName, ExpectedVersion, IdSource,
    NewEvent, Query, QueryItem, SystemClock, SystemIds, Tag,
};

use super::*;
use crate::{
    append::{Committer, tests::open},
    disk::without_waiting,
    facts::LogFacts,
    prefetch::precheck,
    recovery::Founded,
    seal::{merge_step, seal_step},
};

const COUNT: u64 = 3_000;
const NUMBERS: [u64; 5] = [2, 3, 7, 100, 2_500];

fn tag(n: u64) -> Tag {
    Tag::new("n", n).unwrap()
}

/// A log over several runs and several segments in memory.
fn log(folder: &std::path::Path) -> Committer {
    let committer = log_of(folder, 16 << 10);
    let tables = committer.log.view().tables;
    let runs = tables.runs.len();
    let recents = tables.recents.len();
    assert!(runs > 1 && recents > 2, "{runs} runs, {recents} segments in memory");
    committer
}

/// A log in which each event has one of two types, and a tag for each number that divides its
/// position.
fn log_of(folder: &std::path::Path, segment_bytes: u32) -> Committer {
    let mut committer = open(folder, Founded::Never, segment_bytes);
    for first in (1..=COUNT).step_by(50) {
        let event = |position: u64| {
            let id = EventId::new(SystemIds.uuid(factum_kernel::Clock::now(&SystemClock)));
            let name =
                EventName::from_static(if (position / 10).is_multiple_of(2) { "x" } else { "y" });
            let event = NewEvent::new(id, name, Content::Json, "");
            let tags = NUMBERS.into_iter().filter(|n| position.is_multiple_of(*n));
            tags.fold(event, |event, n| event.with_tag(tag(n)))
        };
        let stream = StreamId::new("account", &format!("{}", first % 7)).unwrap();
        let events = (first..first + 50).map(event);
        let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, events);
        committer.commit(&[batch]).unwrap();
    }
    committer
}

fn item(types: &[&str], tags: &[u64]) -> QueryItem {
    QueryItem {
        types: types.iter().map(|name| EventName::parse(name).unwrap()).collect(),
        tags: tags.iter().copied().map(tag).collect(),
    }
}

/// All positions in a scope, found in steps of this many looks, and the number of steps.
fn walk(log: &Log, scope: &Scope, direction: Direction, looks: usize) -> (Vec<u64>, usize) {
    let view = log.view();
    let mut found = Vec::new();
    let mut steps = 0;
    let mut next = Some(if direction == Direction::Forward { 1 } else { COUNT });
    while let Some(from) = next {
        let walk = Walk { from, direction };
        let query = CandidateQuery { scope, walk, positions_max: 100 };
        let part = candidates(log, &view, &query, &mut looks.clone()).unwrap();
        found.extend(part.positions);
        steps += 1;
        next = part.through.and_then(|through| {
            assert!(!is_further(from, through, direction), "a step that goes back");
            step_on(direction, through)
        });
    }
    (found, steps)
}

#[test]
fn a_search_in_steps_finds_what_one_without_end_does() {
    let folder = tempfile::tempdir().unwrap();
    let committer = log(folder.path());
    let queries = [
        vec![item(&[], &[2])],
        vec![item(&["x"], &[])],
        vec![item(&["x", "y"], &[2, 3])],
        vec![item(&["y"], &[3, 7]), item(&["x"], &[2, 100]), item(&[], &[2_500])],
        vec![item(&[], &[])],
        vec![item(&[], &[13]), item(&["never"], &[])],
        vec![],
    ];
    let category = Scope::Category(Category::new("account").unwrap());
    let scopes = queries.into_iter().map(|items| Scope::Query(Query::new(items)));
    for scope in scopes.chain([Scope::Log, category]) {
        let is_match = |position: &u64| match &scope {
            Scope::Query(query) => {
                let tags = NUMBERS.into_iter().filter(|n| position.is_multiple_of(*n)).map(tag);
                let tags: Vec<Tag> = tags.collect();
                let name = if (position / 10).is_multiple_of(2) { "x" } else { "y" };
                query.matches(name, tags.iter().map(Tag::as_str))
            }
            _ => true,
        };
        let mut expected: Vec<u64> = (1..=COUNT).filter(is_match).collect();
        for looks in [0, 1, 9, 200, usize::MAX] {
            let found = walk(&committer.log, &scope, Direction::Forward, looks).0;
            assert_eq!(found, expected, "{scope:?} {looks}");
        }
        expected.reverse();
        for looks in [0, 1, 9, 200, usize::MAX] {
            let found = walk(&committer.log, &scope, Direction::Backward, looks).0;
            assert_eq!(found, expected, "{scope:?} {looks} backward");
        }
    }
    while seal_step(&committer.log).unwrap() || merge_step(&committer.log, &|| false).unwrap() {}
}

/// The search for what two lists share once went on to the end of the log, however far that was.
#[test]
fn a_page_ends_where_its_looks_do_though_nothing_matched() {
    let folder = tempfile::tempdir().unwrap();
    let committer = log(folder.path());
    // Every event has one of the two types, and none of either has all three tags in turn.
    let scope = Scope::Query(Query::new([item(&["x"], &[3, 7, 2, 100]), item(&[], &[2, 3, 7])]));
    let (found, steps) = walk(&committer.log, &scope, Direction::Forward, 100);
    assert_eq!(found.len() as u64, COUNT / 42);
    assert!((5..=60).contains(&steps), "{steps} steps");
    // Nor does it go on where each look finds something, or where each part of the index has
    // nothing.
    let query = |n| Scope::Query(Query::new([item(&[], &[n])]));
    let (found, steps) = walk(&committer.log, &query(2), Direction::Forward, 10);
    assert!(steps > found.len() / 20, "{steps} steps");
    let (_, steps) = walk(&committer.log, &query(13), Direction::Backward, 2);
    assert!(steps > 3, "{steps} steps");
}

/// Such a page once held up the thread that all tasks share, on a large log for seconds.
#[test]
fn a_page_that_takes_much_looking_is_not_made_on_a_thread_that_others_need() {
    let folder = tempfile::tempdir().unwrap();
    // All of it in memory, so that a wait for the disk can't be the reason.
    let committer = log_of(folder.path(), 1 << 20);
    assert_eq!(committer.log.view().tables.recents.len(), 1);
    let few = ReadQuery::matching(Query::new([item(&[], &[100])]));
    assert!(without_waiting(|| page(&committer.log, &few)).is_some());
    let many = Query::new((0..64).map(|n| item(&[], &[[2, 3, 7][n % 3], 2])));
    let many = ReadQuery::matching(many).with_events_max(1_000);
    assert!(without_waiting(|| page(&committer.log, &many)).is_none(), "it is given up");
    assert!(page(&committer.log, &many).unwrap().events.len() > 100);
}

/// The writer once looked at all conditions to the end of the log, while every other append waited.
#[test]
fn the_writer_looks_only_at_what_came_since_a_condition_was_prechecked() {
    let folder = tempfile::tempdir().unwrap();
    let mut committer = log(folder.path());
    let log = committer.log.clone();
    let fail_if_events_match = Query::tag(tag(2_500));
    let asked =
        AppendBatch::new().unless(AppendCondition { fail_if_events_match, after: Position::ZERO });
    let first_match = || {
        let view = log.view();
        let mut facts = LogFacts::new(&log, &view);
        facts.first_match(&asked.conditions()[0]).unwrap().map(Position::value)
    };
    assert_eq!(first_match(), Some(2_500));
    let precheck = precheck(&log, &asked, Precheck::new(&asked)).unwrap();
    assert_eq!((precheck.through(), precheck.is_done()), (&[Position::new(2_499)][..], true));

    let kept = log.prechecks.keep(&asked, &[Position::new(COUNT)]);
    assert_eq!(first_match(), None, "nothing of what was looked at is looked at again");
    let id = EventId::new(SystemIds.uuid(Timestamp::EPOCH));
    let event = NewEvent::new(id, EventName::from_static("x"), Content::Json, "");
    let stream = StreamId::new("account", "late").unwrap();
    let late = AppendBatch::new().write(stream, ExpectedVersion::Any, [event.with_tag(tag(2_500))]);
    committer.commit(&[late]).unwrap();
    assert_eq!(first_match(), Some(COUNT + 1), "what came since is");
    drop(kept);
    assert_eq!(first_match(), Some(2_500));
}
