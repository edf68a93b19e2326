//! Law 8: a batch that is repeated with the same event ids is recognised before versions and
//! conditions are looked at, and answered as the first time.

use std::time::Duration;

use factum_core::{
    AppendBatch, AppendCondition, Appended, ExpectedVersion, Position, Query, RETRY_WINDOW,
};

use super::{
    failure::{CaseResult, ensure, ensure_eq},
    trial::{Bench, Trial, exact, stream, tag},
    winner::at_once,
};

/// Two streams, at their versions, and a condition that the batch's own event violates.
fn opening(trial: &Trial) -> AppendBatch {
    let condition = AppendCondition {
        fail_if_events_match: Query::tag(tag("email:ada")),
        after: Position::ZERO,
    };
    AppendBatch::new()
        .write(stream("account-ada"), exact(0), [trial.tagged(&["email:ada"]), trial.event()])
        .write(stream("bank-main"), ExpectedVersion::Any, [trial.event()])
        .unless(condition)
}

/// Repeats what was stored, and checks that the answer is the first attempt's.
async fn repeat(trial: &Trial, batch: AppendBatch, first: &Appended) -> CaseResult {
    let again = trial.log().append(batch).await?;
    ensure_eq!(again, first.clone().replayed(), "answer to a repeated batch");
    Ok(())
}

/// Marked `repeated()`: the first attempt's positions, versions and time, and nothing is stored.
pub(crate) async fn a_repeated_batch_is_answered_as_the_first_time(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow("bank-main", 2).await?;
    let batch = opening(&trial);
    let first = trial.append(batch.clone()).await?;
    for _ in 0..2 {
        repeat(&trial, batch.clone().repeated(), &first).await?;
    }
    // What came later changes nothing in the answer.
    trial.grow("bank-main", 2).await?;
    trial.grow("account-ada", 1).await?;
    repeat(&trial, batch.repeated(), &first).await?;
    ensure_eq!(trial.read_log().await?.len(), 8, "events in the log");
    Ok(())
}

/// The answer tells the version after each write of a stream, as the first time; whether the mark
/// or the version that fails now made the store look.
pub(crate) async fn a_repeated_batch_that_returns_to_a_stream_is_answered_as_the_first_time(
    bench: Bench,
) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow("bank-main", 1).await?;
    let returns = AppendBatch::new()
        .write(stream("account-ada"), exact(0), trial.events(2))
        .write(stream("bank-main"), ExpectedVersion::Any, trial.events(1))
        .write(stream("account-ada"), ExpectedVersion::Any, trial.events(1))
        .write(stream("bank-main"), ExpectedVersion::Any, trial.events(2));
    let first = trial.append(returns.clone()).await?;
    for _ in 0..2 {
        repeat(&trial, returns.clone(), &first).await?;
        repeat(&trial, returns.clone().repeated(), &first).await?;
        trial.grow("account-ada", 1).await?;
    }
    ensure_eq!(trial.read_log().await?.len(), 9, "events in the log");
    Ok(())
}

/// With `Any` and no condition only the mark tells a store to look.
pub(crate) async fn a_repeated_batch_that_expects_nothing_is_recognised(
    bench: Bench,
) -> CaseResult {
    let trial = bench.open().await?;
    let batch = trial.one("account-ada", ExpectedVersion::Any);
    let first = trial.append(batch.clone()).await?;
    trial.grow("account-ada", 1).await?;
    repeat(&trial, batch.repeated(), &first).await?;
    ensure_eq!(trial.version("account-ada").await?, 2, "version of account-ada");
    Ok(())
}

/// Not marked, but its version would fail, or its check.
pub(crate) async fn a_retry_is_recognised_when_its_version_fails(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let written = trial.one("account-ada", exact(0));
    let first = trial.append(written.clone()).await?;
    repeat(&trial, written, &first).await?;

    let checked =
        trial.one("bank-main", ExpectedVersion::Any).check(stream("account-ada"), exact(1));
    let second = trial.append(checked.clone()).await?;
    trial.grow("account-ada", 1).await?;
    repeat(&trial, checked, &second).await?;
    ensure_eq!(trial.read_log().await?.len(), 3, "events in the log");
    Ok(())
}

/// Not marked, but its own events violate its condition now.
pub(crate) async fn a_retry_is_recognised_when_its_condition_fails(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let claim = |expected| {
        AppendBatch::new().write(stream("account-ada"), expected, [trial.tagged(&["email:ada"])])
    };
    let condition = AppendCondition {
        fail_if_events_match: Query::tag(tag("email:ada")),
        after: Position::ZERO,
    };
    let batch = claim(ExpectedVersion::Any).unless(condition);
    let first = trial.append(batch.clone()).await?;
    repeat(&trial, batch, &first).await?;
    let both = opening(&trial);
    let failed = trial.log().append(both.clone().repeated()).await;
    ensure!(failed.is_err(), "a claim of a taken tag, marked repeated, was stored: {failed:?}");
    Ok(())
}

/// A mark alone makes nothing stored: versions and conditions are looked at as ever.
pub(crate) async fn a_repeated_batch_that_was_never_stored_is_appended(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let first = trial.append(opening(&trial).repeated()).await?;
    ensure_eq!(first.first, Position::new(1), "position of the first event");
    let stale = trial.one("account-ada", exact(0)).repeated();
    trial.conflicts(stale, ("account-ada", exact(0), 2)).await?;
    Ok(())
}

/// Some of the ids but not all is a mistake of the writer's, and stores nothing.
pub(crate) async fn some_of_the_ids_but_not_all_is_invalid(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let events = trial.events(2);
    let write = |events: &[_], expected| {
        AppendBatch::new().write(stream("account-ada"), expected, events.to_vec())
    };
    trial.append(write(&events, exact(0))).await?;
    let more = [events[0].clone(), events[1].clone(), trial.event()];
    let other = [trial.event(), events[1].clone()];
    for some in [&more[..], &other] {
        let any = write(some, ExpectedVersion::Any).repeated();
        trial.refuses("a repeated batch with some known ids", any).await?;
        let stale = write(some, exact(0));
        trial.refuses("a stale batch with some known ids", stale).await?;
    }
    trial.holds(&events).await
}

/// What failed is not remembered: when the obstacle is gone it is stored, for the first time.
pub(crate) async fn a_failed_batch_is_not_remembered(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let early = trial.one("account-ada", exact(1));
    trial.conflicts(early.clone(), ("account-ada", exact(1), 0)).await?;
    trial.conflicts(early.clone().repeated(), ("account-ada", exact(1), 0)).await?;
    trial.grow("account-ada", 1).await?;
    let appended = trial.append(early.clone().repeated()).await?;
    ensure_eq!(appended.first, Position::new(2), "position");
    repeat(&trial, early.repeated(), &appended).await
}

/// Eight copies of one batch at the same moment: stored once, and all are told so.
pub(crate) async fn copies_at_the_same_moment_are_stored_once(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(81).await?;
    for round in 0..6_u64 {
        let batch =
            AppendBatch::new().write(stream("account-ada"), exact(round * 2), trial.events(2));
        // The even rounds are recognised by the version that fails, the odd ones by the mark.
        let batch = if round % 2 == 0 { batch } else { batch.repeated() };
        let outcomes = at_once(&trial, &vec![batch; 8]).await?;
        let mut originals = 0;
        for outcome in outcomes {
            let appended = outcome?;
            ensure_eq!(appended.first, Position::new(round * 2 + 1), "position of a copy");
            originals += usize::from(!appended.replayed);
        }
        ensure_eq!(originals, 1, "copies that say they are the first, round {round}");
    }
    ensure_eq!(trial.read_log().await?.len(), 12, "events in the log");
    Ok(())
}

/// Within the window by the store's clock a batch is recognised, however much was written since.
pub(crate) async fn a_retry_is_recognised_until_the_window_ends(bench: Bench) -> CaseResult {
    let (trial, clock) = bench.open_with_clock().await?;
    let batch = opening(&trial);
    let any = trial.one("account-bob", ExpectedVersion::Any);
    let (first, second) = (trial.append(batch.clone()).await?, trial.append(any.clone()).await?);
    trial.grow("bank-main", 30).await?;
    clock.advance(RETRY_WINDOW - Duration::from_secs(1));
    trial.grow("bank-main", 2).await?;
    repeat(&trial, batch.clone(), &first).await?;
    repeat(&trial, batch.repeated(), &first).await?;
    repeat(&trial, any.repeated(), &second).await
}

/// After the window nobody can tell any more, so a marked batch is refused, stored or not.
pub(crate) async fn a_retry_after_the_window_is_refused(bench: Bench) -> CaseResult {
    let (trial, clock) = bench.open_with_clock().await?;
    let (stored, never) =
        (trial.one("account-a", ExpectedVersion::Any), trial.one("account-b", exact(0)));
    trial.append(stored.clone()).await?;
    clock.advance(RETRY_WINDOW + Duration::from_secs(1));
    trial.refuses("a stored batch repeated too late", stored.repeated()).await?;
    trial.refuses("a batch never stored, repeated too late", never.repeated()).await?;
    ensure_eq!(trial.read_log().await?.len(), 1, "events in the log");
    Ok(())
}
