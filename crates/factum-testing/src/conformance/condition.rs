//! Law 7: a condition never lets a matching event through, and never fails without one.

use factum_kernel::{
    AppendBatch, AppendCondition, AppendError, EventName, ExpectedVersion, Position, Query,
    QueryItem,
};

use super::{
    failure::{CaseResult, Stop, ensure, ensure_eq},
    trial::{Bench, Trial, exact, stream, tag},
    winner::at_once,
};

/// The number of events of a long log: more than a store's writer looks at while others wait.
const LONG: usize = 1_100;

fn item(types: &[&'static str], tags: &[&str]) -> QueryItem {
    QueryItem {
        types: types.iter().map(|name| EventName::from_static(name)).collect(),
        tags: tags.iter().map(|text| tag(text)).collect(),
    }
}

fn unless(query: Query, after: u64) -> AppendCondition {
    AppendCondition { fail_if_events_match: query, after: Position::new(after) }
}

/// Position 1: `x` with a:1, b:2. Position 2: `y` with a:1. Position 3: `x` without tags.
async fn three_events(bench: &Bench) -> CaseResult<Trial> {
    let trial = bench.open().await?;
    let mut first = trial.named("x");
    first.tags = vec![tag("a:1"), tag("b:2")];
    let second = trial.named("y").with_tag(tag("a:1"));
    let events = [first, second, trial.named("x")];
    trial.append(AppendBatch::new().write(stream("s-1"), exact(0), events)).await?;
    Ok(trial)
}

/// Appends under one condition. Returns `None` if it was stored, else the position in the error.
async fn hit(trial: &Trial, query: Query, after: u64) -> CaseResult<Option<u64>> {
    let batch = trial.one("s-2", ExpectedVersion::Any).unless(unless(query, after));
    match trial.log().append(batch).await {
        Ok(_) => Ok(None),
        Err(AppendError::ConditionFailed { condition: 0, position }) => Ok(Some(position.value())),
        other => Err(Stop::failed(format!("a condition was answered with {other:?}"))),
    }
}

/// By type, by tag, by both, by any of several items; after each position.
pub(crate) async fn a_condition_fails_on_each_matching_event(bench: Bench) -> CaseResult {
    let trial = three_events(&bench).await?;
    let cases = [
        (vec![item(&["x"], &[])], vec![1, 3]),
        (vec![item(&[], &["a:1"])], vec![1, 2]),
        (vec![item(&["y"], &["a:1"])], vec![2]),
        (vec![item(&["x", "y"], &[])], vec![1, 2, 3]),
        (vec![item(&[], &["b:2", "a:1"])], vec![1]),
        (vec![item(&["z"], &[]), item(&["y"], &[])], vec![2]),
        (vec![item(&[], &[])], vec![1, 2, 3]),
    ];
    for (items, matching) in cases {
        for after in 0..3 {
            let query = Query::new(items.clone());
            let later: Vec<u64> = matching.iter().copied().filter(|at| *at > after).collect();
            if later.is_empty() {
                continue;
            }
            let found = hit(&trial, query, after).await?;
            ensure!(
                found.is_some_and(|at| later.contains(&at)),
                "condition {items:?} after {after}: found {found:?}, should be one of {later:?}"
            );
        }
    }
    ensure_eq!(trial.version("s-2").await?, 0, "version of s-2 after failed conditions only");
    Ok(())
}

/// An event that is only similar does not match: another value, a prefix, another name, only one of
/// two tags, only the type, or an event that is not after `after`.
pub(crate) async fn a_condition_never_fails_without_a_match(bench: Bench) -> CaseResult {
    let trial = three_events(&bench).await?;
    let queries = [
        (Query::tag(tag("a:2")), 0),
        (Query::tag(tag("a:11")), 0),
        (Query::tag(tag("b:1")), 0),
        (Query::tag(tag("A:1")), 0),
        (Query::new([item(&["y"], &["b:2"])]), 0),
        (Query::new([item(&[], &["a:1", "b:1"])]), 0),
        (Query::new([item(&["X"], &[]), item(&["xx"], &[])]), 0),
        (Query::tag(tag("a:1")), 2),
        (Query::tag(tag("b:2")), 1),
        (Query::new([item(&["x"], &["a:1"])]), 1),
        (Query::new([item(&[], &[])]), Position::MAX.value()),
    ];
    for (query, after) in queries {
        let found = hit(&trial, query.clone(), after).await?;
        ensure_eq!(found, None, "position named by {query:?} after {after}");
    }
    Ok(())
}

/// Of several conditions, the error names the one that failed.
pub(crate) async fn the_failed_condition_is_named(bench: Bench) -> CaseResult {
    let trial = three_events(&bench).await?;
    for wrong in 0..3_usize {
        let mut batch = trial.one("s-2", exact(0));
        for at in 0..3 {
            let text = if at == wrong { "b:2" } else { "free:1" };
            batch = batch.unless(unless(Query::tag(tag(text)), 0));
        }
        match trial.log().append(batch).await {
            Err(AppendError::ConditionFailed { condition, position }) => {
                ensure_eq!((condition, position.value()), (wrong, 1), "condition and position");
            }
            other => return Err(Stop::failed(format!("condition {wrong}: {other:?}"))),
        }
    }
    Ok(())
}

/// A batch's own events do not count as earlier events.
pub(crate) async fn a_condition_does_not_see_its_own_batch(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let claim = || {
        AppendBatch::new()
            .write(stream("s-1"), ExpectedVersion::Any, [trial.tagged(&["email:ada"])])
            .unless(unless(Query::tag(tag("email:ada")), 0))
    };
    trial.append(claim()).await?;
    match trial.log().append(claim()).await {
        Err(AppendError::ConditionFailed { condition: 0, position }) => {
            ensure_eq!(position, Position::new(1), "position of the first claim");
            Ok(())
        }
        other => Err(Stop::failed(format!("a second claim was answered with {other:?}"))),
    }
}

/// 16 writers claim one tag, each for a stream of its own: one succeeds.
pub(crate) async fn one_of_sixteen_claims_a_tag(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(71).await?;
    for round in 0..6 {
        let label = format!("email:{round}");
        let claims: Vec<_> =
            (0..16).map(|at| claim(&trial, &format!("account-{round}.{at}"), &label)).collect();
        let outcomes = at_once(&trial, &claims).await?;
        let won = outcomes.iter().find_map(|outcome| outcome.as_ref().ok());
        let winners = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        ensure_eq!(winners, 1, "claims of {label} that were stored");
        let won = won.map(|appended| appended.first);
        for outcome in outcomes {
            match outcome {
                Ok(_) => {}
                Err(AppendError::ConditionFailed { condition: 0, position }) => {
                    ensure_eq!(Some(position), won, "the position in a loser's error");
                }
                Err(other) => return Err(Stop::failed(format!("a loser was told {other:?}"))),
            }
        }
    }
    Ok(())
}

/// 16 writers claim one tag on a log that is long enough for a precheck: one succeeds, and one more
/// when the winner's stream is gone.
pub(crate) async fn one_of_sixteen_claims_a_tag_of_a_long_log(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(73).await?;
    let most = trial.guarantees().limits.batch_events_max;
    for at in (0..LONG).step_by(most) {
        let events = trial.events(most.min(LONG - at));
        let any = ExpectedVersion::Any;
        trial.append(AppendBatch::new().write(stream("account-many"), any, events)).await?;
    }
    for round in 0..6 {
        let label = format!("email:{round}");
        let name = |at: usize| format!("account-{round}.{at}");
        let claims: Vec<_> = (0..16).map(|at| claim(&trial, &name(at), &label)).collect();
        let outcomes = at_once(&trial, &claims).await?;
        let won: Vec<_> = (0..16).filter(|at| outcomes[*at].is_ok()).collect();
        ensure_eq!(won.len(), 1, "claims of {label} that were stored");
        for lost in outcomes.into_iter().filter_map(Result::err) {
            refused(lost)?;
        }
        trial.delete(&name(won[0])).await?;
        trial.append(claim(&trial, &name(16), &label)).await?;
        match trial.log().append(claim(&trial, &name(17), &label)).await {
            Ok(_) => return Err(Stop::failed(format!("a late claim of {label} was stored"))),
            Err(error) => refused(error)?,
        }
    }
    Ok(())
}

fn refused(error: AppendError) -> CaseResult {
    match error {
        AppendError::ConditionFailed { condition: 0, .. } => Ok(()),
        other => Err(Stop::failed(format!("a loser was told {other:?}"))),
    }
}

/// Claims of different tags never fail, whatever else is written in the meantime.
pub(crate) async fn unrelated_tags_never_fail(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(72).await?;
    for round in 0..5 {
        let claims: Vec<_> = (0..16)
            .map(|at| {
                claim(&trial, &format!("account-{round}.{at}"), &format!("email:{round}.{at}"))
            })
            .collect();
        for (at, outcome) in at_once(&trial, &claims).await?.into_iter().enumerate() {
            if let Err(error) = outcome {
                let told = format!("claim {at} of a tag that is free failed: {error:?}");
                return Err(Stop::failed(told));
            }
        }
    }
    Ok(())
}

fn claim(trial: &Trial, id: &str, label: &str) -> AppendBatch {
    AppendBatch::new()
        .write(stream(id), exact(0), [trial.tagged(&[label, "kind:claim"])])
        .unless(unless(Query::tag(tag(label)), 0))
}
