//! Law 8: a batch that is repeated with the same event ids is recognised before versions and
//! conditions are checked, and gets the first answer.

use std::time::Duration;

use factum_kernel::{
    AppendBatch, AppendCondition, Appended, ExpectedVersion, Position, Query, RETRY_WINDOW,
    StreamChange, StreamVersion,
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

/// Repeats a stored batch, and checks that the answer is the first attempt's.
async fn repeat(trial: &Trial, batch: AppendBatch, first: &Appended) -> CaseResult {
    let again = trial.log().append(batch).await?;
    ensure_eq!(again, first.clone().replayed(), "answer to a repeated batch");
    Ok(())
}

/// Marked as `repeated()`: the answer has the first attempt's positions, versions and time, and
/// nothing is stored.
pub(crate) async fn a_repeated_batch_is_answered_as_the_first_time(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow("bank-main", 2).await?;
    let batch = opening(&trial);
    let first = trial.append(batch.clone()).await?;
    for _ in 0..2 {
        repeat(&trial, batch.clone().repeated(), &first).await?;
    }
    // Later events do not change the answer.
    trial.grow("bank-main", 2).await?;
    trial.grow("account-ada", 1).await?;
    repeat(&trial, batch.repeated(), &first).await?;
    ensure_eq!(trial.read_log().await?.len(), 8, "events in the log");
    Ok(())
}

/// The answer has the version after each write of a stream, like the first one, whether the mark or
/// the failing version made the store search.
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

/// With `Any` and no condition, only the mark makes a store search.
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

/// The mark alone does not count as stored: versions and conditions are checked as usual.
pub(crate) async fn a_repeated_batch_that_was_never_stored_is_appended(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let first = trial.append(opening(&trial).repeated()).await?;
    ensure_eq!(first.first, Position::new(1), "position of the first event");
    let stale = trial.one("account-ada", exact(0)).repeated();
    trial.conflicts(stale, "account-ada", exact(0), 2).await?;
    Ok(())
}

/// A batch with some but not all of the stored ids is a fault of the writer's, and stores nothing.
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

/// A failure is not remembered: once the obstacle is gone, the batch is stored for the first time.
pub(crate) async fn a_failed_batch_is_not_remembered(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let early = trial.one("account-ada", exact(1));
    trial.conflicts(early.clone(), "account-ada", exact(1), 0).await?;
    trial.conflicts(early.clone().repeated(), "account-ada", exact(1), 0).await?;
    trial.grow("account-ada", 1).await?;
    let appended = trial.append(early.clone().repeated()).await?;
    ensure_eq!(appended.first, Position::new(2), "position");
    repeat(&trial, early.repeated(), &appended).await
}

/// Eight copies of one batch at the same moment: it is stored once, and all get that answer.
pub(crate) async fn copies_at_the_same_moment_are_stored_once(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(81).await?;
    for round in 0..6_u64 {
        let batch =
            AppendBatch::new().write(stream("account-ada"), exact(round * 2), trial.events(2));
        // In even rounds, the failing version reveals the repetition; in odd ones, the mark.
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

/// Within the window by the store's clock, a batch is recognised, however much was written since.
pub(crate) async fn a_retry_is_recognised_until_the_window_ends(bench: Bench) -> CaseResult {
    let (trial, clock) = bench.open_with_clock().await?;
    let batch = opening(&trial);
    let any = trial.one("account-bob", ExpectedVersion::Any);
    let first = trial.append(batch.clone()).await?;
    let second = trial.append(any.clone()).await?;
    trial.grow("bank-main", 30).await?;
    clock.advance(RETRY_WINDOW - Duration::from_secs(1));
    trial.grow("bank-main", 2).await?;
    repeat(&trial, batch.clone(), &first).await?;
    repeat(&trial, batch.repeated(), &first).await?;
    repeat(&trial, any.repeated(), &second).await
}

/// The lead of the writer's clock over the store's in these cases: within the window, or not.
const AHEAD: Duration = RETRY_WINDOW.saturating_sub(Duration::from_secs(60));
const TOO_FAR_AHEAD: Duration = RETRY_WINDOW.saturating_add(Duration::from_secs(60));

/// The ids of a writer whose clock is ahead have a later time than the recorded events.
pub(crate) async fn a_retry_from_a_clock_that_is_ahead_is_recognised(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let ahead = |expected| {
        let event = trial.event_at(trial.now().saturating_add(AHEAD));
        AppendBatch::new().write(stream("account-ada"), expected, [event])
    };
    let exact = ahead(exact(0));
    let any = ahead(ExpectedVersion::Any);
    let first = trial.append(exact.clone()).await?;
    let second = trial.append(any.clone()).await?;
    // From here on it is later by the store's clock, and still before the times in the ids.
    trial.sleep(Duration::from_secs(1)).await;
    trial.grow("account-ada", 2).await?;
    repeat(&trial, exact.clone(), &first).await?;
    repeat(&trial, exact.repeated(), &first).await?;
    repeat(&trial, any.repeated(), &second).await
}

/// Its repetition could not be recognised, so it is refused before it is stored at all.
pub(crate) async fn a_batch_from_a_clock_too_far_ahead_is_refused(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let kept = trial.grow("account-ada", 1).await?;
    for expected in [ExpectedVersion::Any, exact(1), exact(0)] {
        let event = trial.event_at(trial.now().saturating_add(TOO_FAR_AHEAD));
        let batch = AppendBatch::new().write(stream("account-ada"), expected, [event]);
        let what = format!("a batch from a clock too far ahead, expecting {expected}");
        trial.refuses(&what, batch.clone()).await?;
        trial.refuses(&what, batch.repeated()).await?;
    }
    trial.holds(&kept).await
}

/// Without the mark a store need not search, and a batch can be stored twice: the first time
/// counts.
pub(crate) async fn a_batch_stored_twice_is_answered_as_the_first_time(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let events = trial.events(2);
    let batch =
        AppendBatch::new().write(stream("account-ada"), ExpectedVersion::Any, events.clone());
    let first = trial.append(batch.clone()).await?;
    trial.grow("bank-main", 1).await?;
    let second = trial.append(batch.clone()).await?;
    repeat(&trial, batch.clone().repeated(), &first).await?;
    trial.change("account-ada", StreamChange::TruncateBefore(StreamVersion::new(3))).await?;
    repeat(&trial, batch.repeated(), &second).await
}

/// A batch is found anywhere in a long stream: by the version that it expected, and by its mark.
pub(crate) async fn a_retry_is_recognised_at_every_place_of_a_stream(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let mut version = 0;
    let mut stored = vec![];
    // More events than a store looks at in one step.
    for number in 0..120 {
        let events = trial.events(number % 4 + 1);
        version += events.len() as u64;
        let before = exact(version - events.len() as u64);
        let batch = AppendBatch::new().write(stream("account-ada"), before, events);
        stored.push((batch.clone(), trial.append(batch).await?));
        trial.grow("account-bob", number % 2).await?;
    }
    for (batch, first) in stored {
        repeat(&trial, batch.clone().repeated(), &first).await?;
        repeat(&trial, batch, &first).await?;
    }
    trial.conflicts(trial.one("account-ada", exact(70)), "account-ada", exact(70), version).await
}

/// The remaining events make up for erased ones: the batch was stored whole.
pub(crate) async fn what_is_left_of_a_batch_answers_for_it(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let ada = "account-ada";
    let bank = "bank-main";
    trial.grow(bank, 1).await?;
    let batch = AppendBatch::new().write(stream(ada), exact(0), trial.events(3)).write(
        stream(bank),
        ExpectedVersion::Any,
        trial.events(2),
    );
    let first = trial.append(batch.clone()).await?;
    let before = |version| StreamChange::TruncateBefore(StreamVersion::new(version));
    trial.change(ada, before(2)).await?;
    repeat(&trial, batch.clone().repeated(), &first).await?;
    repeat(&trial, batch.clone(), &first).await?;
    trial.change(bank, before(3)).await?;
    repeat(&trial, batch.clone().repeated(), &first).await?;
    // Nothing is left of it in its first stream.
    trial.grow(ada, 1).await?;
    trial.change(ada, before(4)).await?;
    repeat(&trial, batch.clone().repeated(), &first).await?;
    repeat(&trial, batch.clone(), &first).await?;
    // Nothing is left of it at all.
    trial.grow(bank, 1).await?;
    trial.change(bank, before(4)).await?;
    trial.refuses("a repeated batch of which nothing is left", batch.clone().repeated()).await?;
    trial.conflicts(batch, ada, exact(0), 4).await
}

/// Erased events explain only their own missing ids.
pub(crate) async fn some_of_the_ids_are_invalid_beside_erased_events(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow("bank-main", 3).await?;
    trial.change("bank-main", StreamChange::TruncateBefore(StreamVersion::new(3))).await?;
    let [known, fresh] = [trial.event(), trial.event()];
    let any = |id, event| AppendBatch::new().write(stream(id), ExpectedVersion::Any, [event]);
    trial.append(any("account-ada", known.clone())).await?;
    trial.grow("account-bob", 1).await?;
    let ada = any("account-ada", known);
    let bank = any("bank-main", fresh);
    for some in [ada.clone().and(bank.clone()), bank.and(ada)] {
        trial.refuses("a repeated batch with one known id", some.repeated()).await?;
    }
    ensure_eq!(trial.read_log().await?.len(), 3, "events in the log");
    Ok(())
}

/// After the window a repetition can't be recognised, so a marked batch is refused, stored or not.
pub(crate) async fn a_retry_after_the_window_is_refused(bench: Bench) -> CaseResult {
    let (trial, clock) = bench.open_with_clock().await?;
    let stored = trial.one("account-a", ExpectedVersion::Any);
    let never = trial.one("account-b", exact(0));
    trial.append(stored.clone()).await?;
    clock.advance(RETRY_WINDOW + Duration::from_secs(1));
    trial.refuses("a stored batch repeated too late", stored.repeated()).await?;
    trial.refuses("a batch never stored, repeated too late", never.repeated()).await?;
    ensure_eq!(trial.read_log().await?.len(), 1, "events in the log");
    Ok(())
}
