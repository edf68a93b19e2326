//! Truncation and retention, and the effects of erasure on laws 2, 3 and 7.

use std::{ops::RangeInclusive, time::Duration};

use factum_kernel::{
    AppendBatch, AppendCondition, AppendError, Category, ChangeError, Durability, ExpectedVersion,
    Position, Query, ReadQuery, Retention, StoreErrorKind, StreamChange, StreamVersion,
};

use super::{
    failure::{CaseResult, Stop, ensure, ensure_eq},
    trial::{Bench, Trial, exact, stream, tag},
};

const ADA: &str = "account-ada";
const BOB: &str = "account-bob";

/// Ten events, alternately of ada and bob, each tagged with its owner.
pub(super) async fn ten_events(trial: &Trial) -> CaseResult {
    for round in 0..10 {
        let (id, label) = if round % 2 == 0 { (ADA, "owner:ada") } else { (BOB, "owner:bob") };
        let event = trial.tagged(&[label]);
        let batch = AppendBatch::new().write(stream(id), ExpectedVersion::Any, [event]);
        trial.append(batch).await?;
    }
    Ok(())
}

/// The positions that every kind of read finds, page by page, forward and backward.
pub(super) async fn visible(trial: &Trial, query: ReadQuery) -> CaseResult<Vec<u64>> {
    let mut found: Vec<Vec<u64>> = vec![];
    for events_max in [1, 2, 100] {
        let query = query.clone().with_events_max(events_max);
        let forward = trial.read(query.clone()).await?;
        let mut backward = trial.read(query.backward()).await?;
        backward.reverse();
        for events in [forward, backward] {
            found.push(events.iter().map(|event| event.position().value()).collect());
        }
    }
    let first = found[0].clone();
    let different = found.iter().find(|other| **other != first);
    ensure_eq!(different, None, "positions that {query:?} finds in another direction or size");
    Ok(first)
}

/// Checks what log, stream, category and query show, and that the log accounts for the rest.
pub(super) async fn check_visible(
    trial: &Trial,
    ada: &[u64],
    bob: &[u64],
    head: u64,
) -> CaseResult {
    let mut both = [ada, bob].concat();
    both.sort_unstable();
    let category = Category::new("account").expect("a valid name");
    let log = visible(trial, ReadQuery::log()).await?;
    ensure_eq!(log, both, "positions in the log");
    ensure_eq!(visible(trial, ReadQuery::stream(stream(ADA))).await?, ada, "positions of ada");
    ensure_eq!(visible(trial, ReadQuery::stream(stream(BOB))).await?, bob, "positions of bob");
    ensure_eq!(visible(trial, ReadQuery::category(category)).await?, both, "in the category");
    // The event of a deletion has no tags.
    let is_deleted = trial.info(ADA).await?.bounds.is_deleted();
    let tagged = if is_deleted { &[] } else { ada };
    let query = ReadQuery::matching(Query::tag(tag("owner:ada")));
    ensure_eq!(visible(trial, query).await?, tagged, "positions tagged owner:ada");
    // Each walk over the log checks that events and ranges leave no gap.
    ensure_eq!(trial.head().await?, Position::new(head), "head");
    Ok(())
}

/// Events before the version are gone from every read; the second time nothing happens.
pub(crate) async fn truncation_erases_the_beginning(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    ten_events(&trial).await?;
    for (before, ada) in
        [(1, &[1, 3, 5, 7, 9][..]), (3, &[5, 7, 9]), (3, &[5, 7, 9]), (2, &[5, 7, 9]), (5, &[9])]
    {
        let change = StreamChange::TruncateBefore(StreamVersion::new(before));
        let bounds = trial.change(ADA, change).await?.bounds;
        let erased = 5 - ada.len() as u64;
        let found = (bounds.version.value(), bounds.erased_through.value());
        ensure_eq!(found, (5, erased), "version and erased_through, truncated before {before}");
        check_visible(&trial, ada, &[2, 4, 6, 8, 10], 10).await?;
    }
    let bounds = trial.info(ADA).await?.bounds;
    ensure_eq!(bounds.deleted_at, StreamVersion::ZERO, "deleted_at of a truncated stream");
    trial.append(trial.one(ADA, exact(5))).await?;
    Ok(())
}

/// More versions than a store erases in one step, and none after them.
pub(crate) async fn a_long_beginning_is_erased_whole(bench: Bench) -> CaseResult {
    const ERASED: u64 = 2 * 4_096 + 5;
    const KEPT: u64 = 9;
    let trial = bench.open().await?;
    trial.fill(ADA, (ERASED + KEPT) as usize).await?;
    let change = StreamChange::TruncateBefore(StreamVersion::new(ERASED + 1));
    let info = trial.change(ADA, change).await?;
    ensure_eq!(info.bounds.erased_through.value(), ERASED, "erased_through of a long stream");
    check_kept(&trial, ERASED + 1..=ERASED + KEPT).await?;
    if trial.guarantees().durability != Durability::Volatile {
        check_kept(&trial.reopen().await?, ERASED + 1..=ERASED + KEPT).await?;
    }
    Ok(())
}

/// Checks that these positions of the log are left, and all before them erased.
async fn check_kept(trial: &Trial, kept: RangeInclusive<u64>) -> CaseResult {
    let walk = trial.walk(ReadQuery::log()).await?;
    ensure_eq!(walk.erased.len() as u64, kept.start() - 1, "number of erased positions");
    let left: Vec<_> = walk.events.iter().map(|event| event.position().value()).collect();
    ensure_eq!(left, kept.collect::<Vec<_>>(), "positions that are left");
    Ok(())
}

/// A truncation that would leave nothing, and a retention of nothing, are invalid.
pub(crate) async fn impossible_changes_are_invalid(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow(ADA, 2).await?;
    let before = |version| StreamChange::TruncateBefore(StreamVersion::new(version));
    let nothing = Retention { events_max: Some(0), age_max: None };
    for (id, change) in [
        (ADA, before(3)),
        (ADA, before(u64::MAX)),
        (BOB, before(1)),
        (ADA, StreamChange::Retain(nothing)),
    ] {
        match trial.log().change(&stream(id), change).await {
            Err(ChangeError::Store(error)) if error.kind() == StoreErrorKind::Invalid => {}
            other => return Err(Stop::failed(format!("{change:?} of {id}: {other:?}"))),
        }
    }
    ensure_eq!(trial.read_log().await?.len(), 2, "events after impossible changes");
    trial.delete(ADA).await?;
    // A deleted stream has nothing left to truncate, up to its version.
    let bounds = trial.change(ADA, before(2)).await?.bounds;
    ensure_eq!(bounds, trial.info(ADA).await?.bounds, "bounds after truncating what is deleted");
    Ok(())
}

/// Neither versions nor positions are given again after a deletion at the end of the log.
pub(crate) async fn numbers_are_never_given_again(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    erase_the_end(&trial).await?;
    go_on_after_the_end(&trial).await
}

/// The same after the store was opened again.
pub(crate) async fn numbers_are_never_given_again_after_reopening(bench: Bench) -> CaseResult {
    let trial = bench.open_durable().await?;
    erase_the_end(&trial).await?;
    let trial = trial.reopen().await?;
    ensure_eq!(trial.head().await?, Position::new(6), "head after reopening");
    go_on_after_the_end(&trial).await
}

async fn erase_the_end(trial: &Trial) -> CaseResult {
    trial.grow(BOB, 2).await?;
    trial.grow(ADA, 3).await?;
    trial.delete(ADA).await?;
    ensure_eq!(trial.head().await?, Position::new(6), "head after a deletion");
    Ok(())
}

async fn go_on_after_the_end(trial: &Trial) -> CaseResult {
    // A writer that loaded before the deletion must not write the first event after it.
    trial.conflicts(trial.one(ADA, exact(3)), ADA, exact(3), 4).await?;
    let appended = trial.append(trial.one(ADA, exact(4))).await?;
    ensure_eq!(appended.first, Position::new(7), "position after the deletion");
    ensure_eq!(appended.versions[0].value(), 5, "version after the deletion");
    let walk = trial.walk(ReadQuery::log()).await?;
    let erased: Vec<_> = walk.erased.iter().map(|position| position.value()).collect();
    ensure_eq!(erased, [3, 4, 5], "erased positions");
    let bounds = trial.info(ADA).await?.bounds;
    let found = (bounds.version.value(), bounds.erased_through.value(), bounds.deleted_at.value());
    ensure_eq!(found, (5, 3, 4), "version, erased_through and deleted_at");
    Ok(())
}

/// A condition does not match erased events, and still matches the others.
pub(crate) async fn conditions_do_not_match_what_is_erased(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    ten_events(&trial).await?;
    let unless = |label| AppendCondition {
        fail_if_events_match: Query::tag(tag(label)),
        after: Position::ZERO,
    };
    trial.change(ADA, StreamChange::TruncateBefore(StreamVersion::new(5))).await?;
    let kept = trial.log().append(trial.one("s-1", exact(0)).unless(unless("owner:ada"))).await;
    let named = matches!(
        kept,
        Err(AppendError::ConditionFailed { position, .. }) if position == Position::new(9)
    );
    ensure!(named, "a condition on the one kept event, at position 9, was answered {kept:?}");
    trial.delete(ADA).await?;
    trial.append(trial.one("s-1", exact(0)).unless(unless("owner:ada"))).await?;
    let other = trial.log().append(trial.one("s-1", exact(1)).unless(unless("owner:bob"))).await;
    ensure!(other.is_err(), "a condition on a stream that is not erased let the batch through");
    Ok(())
}

/// A tag whose events are all gone is like one that never existed; the next event with it can be
/// found again.
pub(crate) async fn a_tag_comes_again_after_all_its_events_were_erased(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let retention = Retention { events_max: Some(1), age_max: None };
    trial.change(ADA, StreamChange::Retain(retention)).await?;
    let write = |id: &str, label: &str| {
        AppendBatch::new().write(stream(id), ExpectedVersion::Any, [trial.tagged(&[label])])
    };
    let found = |label: &str| visible(&trial, ReadQuery::matching(Query::tag(tag(label))));
    for label in ["n:1", "n:2", "n:3"] {
        trial.append(write(ADA, label)).await?;
    }
    trial.append(write(BOB, "n:1")).await?;
    for (label, wanted) in [("n:1", vec![4]), ("n:2", vec![]), ("n:3", vec![3])] {
        ensure_eq!(found(label).await?, wanted, "positions tagged {label} after retention");
    }
    trial.delete(BOB).await?;
    ensure_eq!(found("n:1").await?, [0; 0], "positions tagged n:1 after a deletion");
    trial.append(write(ADA, "n:1")).await?;
    ensure_eq!(found("n:1").await?, [6], "positions tagged n:1 when it came again");
    Ok(())
}

/// Applied when it is set and at each append, not to other streams; an empty one ends it.
pub(crate) async fn retention_keeps_the_last_events(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    ten_events(&trial).await?;
    let keep = |events_max| StreamChange::Retain(Retention { events_max, age_max: None });
    let info = trial.change(ADA, keep(Some(2))).await?;
    ensure_eq!(info.retention.events_max, Some(2), "retention that is answered");
    ensure_eq!(info.bounds.erased_through.value(), 3, "erased_through when it is set");
    check_visible(&trial, &[7, 9], &[2, 4, 6, 8, 10], 10).await?;
    let events = [trial.tagged(&["owner:ada"]), trial.tagged(&["owner:ada"])];
    trial.append(AppendBatch::new().write(stream(ADA), exact(5), events)).await?;
    check_visible(&trial, &[11, 12], &[2, 4, 6, 8, 10], 12).await?;
    trial.change(ADA, keep(None)).await?;
    let event = trial.tagged(&["owner:ada"]);
    trial.append(AppendBatch::new().write(stream(ADA), exact(7), [event])).await?;
    check_visible(&trial, &[11, 12, 13], &[2, 4, 6, 8, 10], 13).await
}

/// Of a batch with more events than are kept, the last events stay.
pub(crate) async fn retention_keeps_the_last_event_of_a_batch(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let keep = StreamChange::Retain(Retention { events_max: Some(1), age_max: None });
    trial.change(ADA, keep).await?;
    let appended =
        trial.append(AppendBatch::new().write(stream(ADA), exact(0), trial.events(4))).await?;
    ensure_eq!(appended.last, Position::new(4), "last position of the batch");
    let kept = visible(&trial, ReadQuery::log()).await?;
    ensure_eq!(kept, [4], "positions kept");
    trial.append(trial.one(ADA, exact(4))).await?;
    ensure_eq!(visible(&trial, ReadQuery::log()).await?, [5], "positions kept after one more");
    Ok(())
}

/// By age, by the store's clock. The last event always stays, and a stream without new events keeps
/// what it has.
pub(crate) async fn retention_by_age_keeps_the_last_event(bench: Bench) -> CaseResult {
    let (trial, clock) = bench.open_with_clock().await?;
    trial.grow(ADA, 2).await?;
    clock.advance(Duration::from_secs(100));
    trial.grow(ADA, 1).await?;
    let keep = Retention { events_max: None, age_max: Some(Duration::from_secs(60)) };
    trial.change(ADA, StreamChange::Retain(keep)).await?;
    ensure_eq!(visible(&trial, ReadQuery::log()).await?, [3], "positions kept when it is set");
    clock.advance(Duration::from_secs(1_000));
    ensure_eq!(visible(&trial, ReadQuery::log()).await?, [3], "positions kept while unwritten");
    trial.grow(ADA, 1).await?;
    ensure_eq!(visible(&trial, ReadQuery::log()).await?, [4], "positions kept after an append");
    clock.advance(Duration::from_secs(1_000));
    trial.change(ADA, StreamChange::Retain(keep)).await?;
    ensure_eq!(visible(&trial, ReadQuery::log()).await?, [4], "positions kept at the last event");
    let aged = |age| StreamChange::Retain(Retention { events_max: None, age_max: Some(age) });
    trial.change(ADA, aged(Duration::MAX)).await?;
    trial.grow(ADA, 1).await?;
    ensure_eq!(visible(&trial, ReadQuery::log()).await?, [4, 5], "positions kept forever");
    trial.change(ADA, aged(Duration::ZERO)).await?;
    clock.advance(Duration::from_secs(1));
    trial.change(ADA, aged(Duration::ZERO)).await?;
    ensure_eq!(visible(&trial, ReadQuery::log()).await?, [5], "positions kept for no time");
    Ok(())
}

/// By age, where more events are old than a store looks at in one step.
pub(crate) async fn retention_by_age_finds_the_first_young_event_among_many(
    bench: Bench,
) -> CaseResult {
    const OLD: u64 = 3 * 1_024 + 7;
    let (trial, clock) = bench.open_with_clock().await?;
    trial.fill(ADA, OLD as usize).await?;
    clock.advance(Duration::from_secs(60));
    trial.fill(ADA, 2).await?;
    let keep = Retention { events_max: None, age_max: Some(Duration::from_secs(30)) };
    let info = trial.change(ADA, StreamChange::Retain(keep)).await?;
    ensure_eq!(info.bounds.erased_through.value(), OLD, "erased_through when it is set");
    check_kept(&trial, OLD + 1..=OLD + 2).await?;
    clock.advance(Duration::from_secs(31));
    trial.fill(ADA, 3).await?;
    check_kept(&trial, OLD + 3..=OLD + 5).await?;
    clock.advance(Duration::from_secs(31));
    // Another stream's append erases nothing of this one.
    trial.grow(BOB, 1).await?;
    check_kept(&trial, OLD + 3..=OLD + 6).await?;
    trial.grow(ADA, 1).await?;
    check_kept(&trial, OLD + 6..=OLD + 7).await
}

/// Retention outlives a restart, as everything acknowledged does.
pub(crate) async fn retention_is_kept_after_reopening(bench: Bench) -> CaseResult {
    let trial = bench.open_durable().await?;
    let keep = Retention { events_max: Some(2), age_max: Some(Duration::from_secs(3_600)) };
    trial.change(ADA, StreamChange::Retain(keep)).await?;
    trial.grow(ADA, 2).await?;
    let trial = trial.reopen().await?;
    ensure_eq!(trial.info(ADA).await?.retention, keep, "retention after reopening");
    trial.grow(ADA, 1).await?;
    ensure_eq!(visible(&trial, ReadQuery::log()).await?, [2, 3], "positions kept");
    Ok(())
}

/// A stream is written, truncated and deleted while it is read. The bounds on a page are of the
/// same moment as its rows.
pub(crate) async fn bounds_and_rows_are_of_one_moment(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(121).await?;
    let writer = tokio::spawn(write_and_erase(trial.clone()));
    while !writer.is_finished() {
        let page = trial.page(ReadQuery::stream(stream(ADA))).await?;
        let bounds = page.bounds.unwrap_or_default();
        let versions: Vec<_> = page.events.iter().map(|event| event.version().value()).collect();
        let wanted: Vec<_> = (bounds.erased_through.value() + 1..=bounds.version.value()).collect();
        ensure_eq!(versions, wanted, "versions on a page of all that is left, with {bounds:?}");
        tokio::task::yield_now().await;
    }
    writer.await.map_err(|e| Stop::failed(format!("the writer panicked: {e}")))?
}

async fn write_and_erase(trial: Trial) -> CaseResult {
    for round in 0..24 {
        let events = trial.events(2);
        let batch = AppendBatch::new().write(stream(ADA), ExpectedVersion::Any, events);
        let version = trial.append(batch).await?.versions[0];
        match round % 4 {
            1 => drop(trial.change(ADA, StreamChange::TruncateBefore(version)).await?),
            3 => drop(trial.delete(ADA).await?),
            _ => {}
        }
    }
    Ok(())
}
