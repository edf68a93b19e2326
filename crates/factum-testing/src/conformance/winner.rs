//! Law 6: of concurrent appends with the same expected version, one wins. A group's outcomes are
//! those of its members one after another.

use std::collections::BTreeMap;

use factum_kernel::{
    AppendBatch, AppendCondition, AppendError, Appended, ExpectedVersion, Position, Query,
    StreamBounds,
};
use tokio::{sync::Barrier, task::JoinSet};

use super::{
    failure::{CaseResult, Stop, ensure, ensure_eq},
    trial::{Bench, Trial, exact, stream, tag},
};

const RIVALS: usize = 16;

type Outcome = Result<Appended, AppendError>;

/// Appends all batches at the same moment. Returns the outcomes in the order of the batches.
pub(crate) async fn at_once(trial: &Trial, batches: &[AppendBatch]) -> CaseResult<Vec<Outcome>> {
    let barrier = std::sync::Arc::new(Barrier::new(batches.len()));
    let mut set = JoinSet::new();
    for (at, batch) in batches.iter().cloned().enumerate() {
        let log = trial.log().clone();
        let barrier = barrier.clone();
        set.spawn(async move {
            barrier.wait().await;
            (at, log.append(batch).await)
        });
    }
    let mut outcomes = BTreeMap::new();
    while let Some(joined) = set.join_next().await {
        let (at, outcome) = joined.map_err(|e| Stop::failed(format!("append panicked: {e}")))?;
        outcomes.insert(at, outcome);
    }
    Ok(outcomes.into_values().collect())
}

/// 16 writers expect one version, eight times over: each time one is stored and 15 conflict.
pub(crate) async fn one_of_sixteen_rivals_wins(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(61).await?;
    for round in 0..8_u64 {
        let rivals: Vec<_> = (0..RIVALS).map(|_| trial.one("account-ada", exact(round))).collect();
        let outcomes = at_once(&trial, &rivals).await?;
        let winners = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        ensure_eq!(winners, 1, "winners among {RIVALS} appends at version {round} of account-ada");
        for outcome in &outcomes {
            match outcome {
                Ok(won) => ensure_eq!(won.first.value(), round + 1, "the winner's position"),
                Err(AppendError::Conflict(lost)) => {
                    ensure_eq!(lost.actual.value(), round + 1, "the version in the losers' errors");
                }
                Err(other) => return Err(Stop::failed(format!("a loser was told {other:?}"))),
            }
        }
    }
    ensure_eq!(trial.version("account-ada").await?, 8, "version after 8 rounds");
    Ok(())
}

/// 16 writers create one stream: one does.
pub(crate) async fn one_of_sixteen_creates_a_stream(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(62).await?;
    for round in 0..4 {
        let id = format!("account-{round}");
        let rivals: Vec<_> =
            (0..RIVALS).map(|_| trial.one(&id, ExpectedVersion::NoStream)).collect();
        let outcomes = at_once(&trial, &rivals).await?;
        let winners = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        ensure_eq!(winners, 1, "creators of {id}");
        ensure_eq!(trial.version(&id).await?, 1, "version of {id}");
    }
    Ok(())
}

/// Two batches each write the stream that the other checks: at most one of them is stored.
pub(crate) async fn checks_prevent_write_skew(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(63).await?;
    for round in 0..12 {
        let left = format!("left-{round}");
        let right = format!("right-{round}");
        let cross = |to: &str, checked: &str| {
            trial.one(to, exact(0)).check(stream(checked), ExpectedVersion::NoStream)
        };
        let outcomes = at_once(&trial, &[cross(&left, &right), cross(&right, &left)]).await?;
        let stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        ensure_eq!(stored, 1, "batches stored that check each other's stream, round {round}");
    }
    Ok(())
}

/// Appends that depend on each other, submitted together: the outcome must be that of some order.
/// For a chain `Exact(0)`, `Exact(1)`, ... that means no gap; for conditions, that each sees the
/// members before it.
pub(crate) async fn a_group_is_its_members_one_after_another(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(64).await?;
    let mut state = Serial::default();
    for round in 0..6 {
        let group: Vec<_> = (0..RIVALS).map(|at| member(&trial, round, at)).collect();
        let outcomes = at_once(&trial, &group).await?;
        state.explain(&group, &outcomes)?;
    }
    let log = trial.read_log().await?;
    ensure_eq!(log.len() as u64, state.head, "events in the log");
    Ok(())
}

fn member(trial: &Trial, round: usize, at: usize) -> AppendBatch {
    let chain = format!("chain-{round}");
    let other = format!("other-{round}-{}", at % 3);
    let label = format!("seat:{round}-{}", at % 5);
    match at % 4 {
        // A chain: each member expects the version that the one before it leaves.
        0 | 1 => trial.one(&chain, exact((at / 2) as u64)),
        // A tag that only one member can claim.
        2 => AppendBatch::new()
            .write(stream(&other), ExpectedVersion::Any, [trial.tagged(&[&label])])
            .unless(AppendCondition {
                fail_if_events_match: Query::tag(tag(&label)),
                after: Position::ZERO,
            }),
        // A member that checks what the others write.
        _ => trial.one(&other, exact((at / 8) as u64)).check(stream(&chain), exact(at as u64 / 4)),
    }
}

/// The log as the successes build it, in the order of their positions.
#[derive(Debug, Default)]
struct Serial {
    head: u64,
    versions: BTreeMap<String, u64>,
    /// Each tag, with the position of its first event.
    tags: BTreeMap<String, Position>,
}

impl Serial {
    /// Replays the successes by position. Each must be possible at its place, and each failure must
    /// be right at some point between them.
    fn explain(&mut self, group: &[AppendBatch], outcomes: &[Outcome]) -> CaseResult {
        let mut stored: Vec<_> = group
            .iter()
            .zip(outcomes)
            .filter_map(|(batch, outcome)| outcome.as_ref().ok().map(|answer| (batch, answer)))
            .collect();
        stored.sort_by_key(|(_, answer)| answer.first);
        let mut failed: Vec<_> =
            group.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_err()).collect();
        ensure!(!stored.is_empty(), "no member of a group of {} was stored", group.len());
        failed.retain(|(batch, outcome)| !self.explains(batch, outcome));
        for (batch, answer) in stored {
            ensure_eq!(answer.first.value(), self.head + 1, "position of the next success");
            if let Some(obstacle) = self.obstacle(batch) {
                let first = answer.first;
                ensure!(false, "stored at position {first}, although there {obstacle}: {batch:?}");
            }
            self.apply(batch, answer)?;
            failed.retain(|(batch, outcome)| !self.explains(batch, outcome));
        }
        match failed.first() {
            None => Ok(()),
            Some((batch, outcome)) => Err(Stop::failed(format!(
                "in no order of the group does {batch:?} end as {outcome:?}"
            ))),
        }
    }

    fn version(&self, stream: &factum_kernel::StreamId) -> StreamBounds {
        let version = self.versions.get(stream.as_str()).copied().unwrap_or(0);
        StreamBounds { version: factum_kernel::StreamVersion::new(version), ..Default::default() }
    }

    fn expectations(
        batch: &AppendBatch,
    ) -> impl Iterator<Item = (&factum_kernel::StreamId, ExpectedVersion)> {
        let written = batch.writes().iter().map(|write| (&write.stream, write.expected));
        written.chain(batch.checks().iter().map(|check| (&check.stream, check.expected)))
    }

    fn condition_hit(&self, batch: &AppendBatch) -> Option<Position> {
        let condition = batch.conditions().first()?;
        let wanted = &condition.fail_if_events_match.items()[0].tags[0];
        self.tags.get(wanted.as_str()).copied()
    }

    /// The reason why the batch can't be stored now.
    fn obstacle(&self, batch: &AppendBatch) -> Option<String> {
        let wrong = Self::expectations(batch)
            .find(|(stream, expected)| !self.version(stream).matches(*expected));
        if let Some((stream, expected)) = wrong {
            let version = self.version(stream).version;
            return Some(format!("{stream} is at version {version}, not {expected}"));
        }
        self.condition_hit(batch).map(|position| format!("its tag is taken at {position}"))
    }

    /// Returns whether the batch would fail with this outcome now.
    fn explains(&self, batch: &AppendBatch, outcome: &Outcome) -> bool {
        match outcome {
            Err(AppendError::Conflict(conflict)) => {
                let said = (&conflict.stream, conflict.expected);
                let bounds = self.version(&conflict.stream);
                Self::expectations(batch).any(|one| one == said)
                    && bounds.version == conflict.actual
                    && !bounds.matches(conflict.expected)
            }
            Err(AppendError::ConditionFailed { condition: 0, position }) => {
                self.condition_hit(batch) == Some(*position)
            }
            _ => false,
        }
    }

    fn apply(&mut self, batch: &AppendBatch, answer: &Appended) -> CaseResult {
        for (write, version) in batch.writes().iter().zip(&answer.versions) {
            let now = self.versions.entry(write.stream.as_str().into()).or_default();
            *now += write.events.len() as u64;
            ensure_eq!(version.value(), *now, "version of {} at {}", write.stream, answer.first);
        }
        for event in batch.events() {
            self.head += 1;
            for tag in &event.tags {
                self.tags.entry(tag.as_str().into()).or_insert(Position::new(self.head));
            }
        }
        Ok(())
    }
}
