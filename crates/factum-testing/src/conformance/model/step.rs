//! The steps that sequences consist of.

use factum_kernel::{
    AppendBatch, AppendCondition, Category, ExpectedVersion, NewEvent, Position, Query, ReadFrom,
    ReadQuery, Retention, StreamChange, StreamVersion,
};
use proptest::{bool, collection, option, prelude::*};

use super::{
    super::trial::{Trial, exact, stream, tag},
    reference::Reference,
};

/// Few, so that steps meet.
pub(super) const STREAMS: [&str; 3] = ["account-ada", "account-bob", "bank-main"];
const TAGS: [&str; 3] = ["part:0", "part:1", "part:2"];

#[derive(Debug, Clone)]
pub(super) enum Step {
    Append(Draft),
    /// Repeats an earlier batch; `which` is counted round and round.
    Repeat {
        which: usize,
        marked: bool,
    },
    /// Changes the stream with this number.
    Change(usize, StreamChange),
    Read(ReadQuery),
}

/// A batch, with expectations relative to the current versions.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// The number of the first stream.
    first: usize,
    /// The distance from the first stream to the second, if a second one is written after it.
    second: Option<usize>,
    /// True if the first stream is deleted before it is written.
    deletes: bool,
    /// True if the first stream is written once more after that.
    returns: bool,
    /// The expected version of the first write; later writes expect any.
    expect: Expect,
    count: usize,
    tag: Option<usize>,
    check: Option<Expect>,
    /// A tag, and the distance from the head at which the condition begins to look.
    condition: Option<(usize, u64)>,
}

#[derive(Debug, Clone, Copy)]
enum Expect {
    Plain(ExpectedVersion),
    /// The current version.
    Right,
    /// One too many.
    Ahead,
    /// One too few, or `Any` if there is none.
    Behind,
}

impl Expect {
    fn of(self, model: &Reference, id: &str) -> ExpectedVersion {
        let version = model.info(id).bounds.version.value();
        match self {
            Self::Plain(expected) => expected,
            Self::Right => exact(version),
            Self::Ahead => exact(version + 1),
            Self::Behind => exact(version.saturating_sub(1)),
        }
    }
}

impl Draft {
    pub(super) fn batch(&self, trial: &Trial, model: &Reference) -> AppendBatch {
        let id = |at: usize| STREAMS[at % 3];
        let events = || -> Vec<NewEvent> {
            let tags: Vec<&str> = self.tag.iter().map(|at| TAGS[*at]).collect();
            (0..self.count).map(|_| trial.tagged(&tags)).collect()
        };
        let first = id(self.first);
        let expected = self.expect.of(model, first);
        let mut batch = match self.deletes {
            true => trial.deletion(first, expected),
            false => AppendBatch::new().write(stream(first), expected, events()),
        };
        if let Some(distance) = self.second {
            let second = id(self.first + distance);
            batch = batch.write(stream(second), ExpectedVersion::Any, events());
        }
        if self.returns {
            batch = batch.write(stream(first), ExpectedVersion::Any, events());
        }
        if let Some(check) = self.check {
            // The stream that neither write can be, because the second is at most one after the
            // first.
            let checked = id(self.first + 2);
            batch = batch.check(stream(checked), check.of(model, checked));
        }
        if let Some((label, before)) = self.condition {
            let after = Position::new(model.head().value().saturating_sub(before));
            let fail_if_events_match = Query::tag(tag(TAGS[label]));
            batch = batch.unless(AppendCondition { fail_if_events_match, after });
        }
        batch
    }
}

/// A sequence of steps.
pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => draft().prop_map(Step::Append),
        2 => (0..8_usize, any::<bool>()).prop_map(|(which, marked)| Step::Repeat { which, marked }),
        2 => (0..3_usize, change()).prop_map(|(at, change)| Step::Change(at, change)),
        3 => query().prop_map(Step::Read),
    ];
    collection::vec(step, 1..24)
}

fn draft() -> impl Strategy<Value = Draft> {
    let condition = option::weighted(0.3, (0..3_usize, 0..12_u64));
    let parts = (
        0..3_usize,
        option::weighted(0.3, Just(1_usize)),
        expect(),
        1..4_usize,
        option::of(0..3_usize),
        option::weighted(0.2, expect()),
        condition,
        (bool::weighted(0.3), bool::weighted(0.2)),
    );
    parts.prop_map(|(first, second, expect, count, tag, check, condition, (returns, deletes))| {
        Draft { first, second, deletes, returns, expect, count, tag, check, condition }
    })
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        4 => Just(Expect::Right),
        3 => Just(Expect::Plain(ExpectedVersion::Any)),
        1 => Just(Expect::Plain(ExpectedVersion::NoStream)),
        1 => Just(Expect::Plain(ExpectedVersion::StreamExists)),
        1 => Just(Expect::Ahead),
        1 => Just(Expect::Behind),
    ]
}

fn change() -> impl Strategy<Value = StreamChange> {
    let version = (0..9_u64).prop_map(StreamVersion::new);
    let keep = option::of(0..4_u64);
    prop_oneof![
        2 => version.prop_map(StreamChange::TruncateBefore),
        2 => keep.prop_map(|events_max| {
            StreamChange::Retain(Retention { events_max, age_max: None })
        }),
    ]
}

fn query() -> impl Strategy<Value = ReadQuery> {
    let category = Category::new("account").expect("a valid name");
    let scope = prop_oneof![
        2 => Just(ReadQuery::log()),
        2 => (0..3_usize).prop_map(|at| ReadQuery::stream(stream(STREAMS[at]))),
        1 => Just(ReadQuery::category(category)),
        2 => (0..3_usize).prop_map(|at| ReadQuery::matching(Query::tag(tag(TAGS[at])))),
    ];
    let from = prop_oneof![
        2 => Just(None),
        1 => (0..40_u64).prop_map(|at| Some(ReadFrom::Position(Position::new(at)))),
    ];
    (scope, from, any::<bool>(), 1..6_usize).prop_map(|(query, from, backward, events_max)| {
        let query = query.with_events_max(events_max);
        let query = if backward { query.backward() } else { query };
        from.into_iter().fold(query, ReadQuery::from)
    })
}
