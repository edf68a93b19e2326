//! Deletion: an event that erases everything before it in its stream, in the same moment. Its
//! effects on laws 1 to 8.

use factum_kernel::{
    AppendBatch, AppendCondition, AppendError, ExpectedVersion, NewEvent, Position, Query,
    ReadQuery, RecordedEvent, StreamVersion,
};

use super::{
    erasure::{check_visible, ten_events},
    failure::{CaseResult, Stop, ensure, ensure_eq},
    trial::{Bench, Trial, exact, stream, tag},
    winner::at_once,
};

const ADA: &str = "account-ada";
const BOB: &str = "account-bob";
const EXISTS: ExpectedVersion = ExpectedVersion::StreamExists;

/// A deleted stream's events are gone from every read at once. The event of the deletion stays,
/// with the next position and version.
pub(crate) async fn a_deleted_stream_is_gone_from_every_read(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    ten_events(&trial).await?;
    let deleted = trial.delete(ADA).await?;
    ensure_eq!(deleted.first, Position::new(11), "position of the deletion");
    ensure_eq!(deleted.versions, [StreamVersion::new(6)], "version that the deletion took");
    let info = trial.info(ADA).await?;
    let bounds = info.bounds;
    let found = (bounds.version.value(), bounds.erased_through.value(), bounds.deleted_at.value());
    ensure_eq!(found, (6, 5, 6), "version, erased_through and deleted_at");
    let at = Some(deleted.recorded_at);
    ensure_eq!(
        (info.first_at, info.last_at),
        (at, at),
        "times of a stream with its deletion alone"
    );
    check_visible(&trial, &[11], &[2, 4, 6, 8, 10], 11).await?;
    let walk = trial.walk(ReadQuery::stream(stream(ADA))).await?;
    ensure_eq!(walk.bounds, Some(bounds), "bounds on a page of the deleted stream");
    trial.delete(BOB).await?;
    check_visible(&trial, &[11], &[12], 12).await
}

/// The event of a deletion has its own name, no payload and no tags, and keeps its metadata.
pub(crate) async fn a_deletion_is_an_event(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow(ADA, 1).await?;
    let metadata = factum_kernel::Metadata::new().with_user("eve");
    let deletion = NewEvent::deletion(trial.id()).with_metadata(metadata.clone());
    let batch = AppendBatch::new().write(stream(ADA), exact(1), [deletion.clone()]);
    trial.append(batch).await?;
    let log = trial.read_log().await?;
    let [found] = &log[..] else {
        return Err(Stop::failed(format!("after a deletion the log holds {log:?}")));
    };
    ensure!(found.is_deletion(), "the event of a deletion has the name {}", found.name());
    ensure_eq!(found.id(), deletion.id, "id of the event");
    ensure_eq!(found.payload(), b"", "payload of the event");
    ensure_eq!(found.tags().count(), 0, "tags of the event");
    ensure_eq!(found.metadata(), metadata, "metadata of the event");
    Ok(())
}

/// A stream that never existed, or is deleted already, can't be deleted, whatever is expected.
pub(crate) async fn a_deletion_needs_something_to_delete(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    for expected in [ExpectedVersion::Any, ExpectedVersion::NoStream, exact(0)] {
        trial.conflicts(trial.deletion(ADA, expected), ADA, EXISTS, 0).await?;
    }
    trial.grow(ADA, 2).await?;
    trial.delete(ADA).await?;
    for expected in [ExpectedVersion::Any, EXISTS, exact(3)] {
        trial.conflicts(trial.deletion(ADA, expected), ADA, EXISTS, 3).await?;
    }
    ensure_eq!(trial.version(ADA).await?, 3, "version of the deleted stream");
    ensure_eq!(trial.head().await?, Position::new(3), "head after refused deletions");
    Ok(())
}

/// A deletion that expects another version conflicts and erases nothing.
pub(crate) async fn a_deletion_can_expect_a_version(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow(ADA, 3).await?;
    for expected in [exact(2), exact(4), ExpectedVersion::NoStream] {
        trial.conflicts(trial.deletion(ADA, expected), ADA, expected, 3).await?;
    }
    ensure_eq!(trial.read_log().await?.len(), 3, "events after refused deletions");
    trial.append(trial.deletion(ADA, exact(3))).await?;
    ensure_eq!(trial.read_log().await?.len(), 1, "events after the deletion");
    Ok(())
}

/// A writer that has not seen the deletion learns of it from its conflict; one that has does not.
pub(crate) async fn a_conflict_after_a_deletion_names_it(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow(ADA, 3).await?;
    trial.delete(ADA).await?;
    let named = async |expected, wanted: Option<u64>| -> CaseResult {
        match trial.log().append(trial.one(ADA, expected)).await {
            Err(AppendError::Conflict(conflict)) => {
                let wanted = wanted.map(StreamVersion::new);
                ensure_eq!(conflict.deleted_at, wanted, "deleted_at of {conflict:?}");
                Ok(())
            }
            other => Err(Stop::failed(format!("expecting {expected} was answered {other:?}"))),
        }
    };
    for expected in [exact(3), EXISTS, ExpectedVersion::NoStream] {
        named(expected, Some(4)).await?;
    }
    trial.append(trial.one(ADA, exact(4))).await?;
    named(exact(3), Some(4)).await?;
    named(exact(4), None).await
}

/// A batch may delete a stream and write its new beginning, beside other streams. All of it is
/// stored or nothing.
pub(crate) async fn a_batch_deletes_and_begins_again(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow(ADA, 3).await?;
    let begin = |expected| {
        trial
            .deletion(ADA, expected)
            .write(stream(BOB), ExpectedVersion::Any, trial.events(1))
            .write(stream(ADA), ExpectedVersion::Any, trial.events(2))
    };
    trial.conflicts(begin(exact(2)), ADA, exact(2), 3).await?;
    ensure_eq!(trial.read_log().await?.len(), 3, "events after a refused batch");
    let appended = trial.append(begin(exact(3))).await?;
    let versions: Vec<_> = appended.versions.iter().map(|version| version.value()).collect();
    ensure_eq!(versions, [4, 1, 6], "versions after each write");
    let bounds = trial.info(ADA).await?.bounds;
    let found = (bounds.version.value(), bounds.erased_through.value(), bounds.deleted_at.value());
    ensure_eq!(found, (6, 3, 4), "version, erased_through and deleted_at");
    let kept = trial.read(ReadQuery::stream(stream(ADA))).await?;
    let kept: Vec<_> =
        kept.iter().map(|event| (event.version().value(), event.is_deletion())).collect();
    ensure_eq!(kept, [(4, true), (5, false), (6, false)], "versions, and whether they delete");
    Ok(())
}

/// A write of a stream before its deletion in one batch is refused: its events would be lost
/// without a reader. So is an event that only looks like a deletion.
pub(crate) async fn a_deletion_comes_first_and_is_whole(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow(ADA, 1).await?;
    let any = ExpectedVersion::Any;
    let late = trial.one(ADA, any).and(trial.deletion(ADA, any));
    trial.refuses("a deletion after a write of its stream", late).await?;
    let within = [trial.event(), NewEvent::deletion(trial.id())];
    let within = AppendBatch::new().write(stream(ADA), any, within);
    trial.refuses("a deletion after an event of its write", within).await?;
    let twice = trial.deletion(ADA, any).and(trial.deletion(ADA, any));
    trial.refuses("two deletions of a stream", twice).await?;
    let forged = |event| AppendBatch::new().write(stream(ADA), any, [event]);
    let deletion = || NewEvent::deletion(trial.id());
    let tagged = deletion().with_tag(tag("owner:ada"));
    trial.refuses("a deletion with a tag", forged(tagged)).await?;
    let loaded = NewEvent { payload: "{}".into(), ..deletion() };
    trial.refuses("a deletion with a payload", forged(loaded)).await?;
    trial.refuses("a reserved name", forged(trial.named("$stream.renamed"))).await?;
    ensure_eq!(trial.read_log().await?.len(), 1, "events after refused batches");
    Ok(())
}

/// A deletion beside a condition that fails erases nothing. One whose own erasure makes a tag free
/// still fails: the condition is of the moment before the batch.
pub(crate) async fn a_deletion_is_stored_under_its_conditions(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    ten_events(&trial).await?;
    let unless = |label: &str| AppendCondition {
        fail_if_events_match: Query::tag(tag(label)),
        after: Position::ZERO,
    };
    for label in ["owner:bob", "owner:ada"] {
        let batch = trial.deletion(ADA, exact(5)).unless(unless(label));
        match trial.log().append(batch).await {
            Err(AppendError::ConditionFailed { condition: 0, .. }) => {}
            other => return Err(Stop::failed(format!("unless {label}: {other:?}"))),
        }
    }
    ensure_eq!(trial.read_log().await?.len(), 10, "events after refused deletions");
    trial.append(trial.deletion(ADA, exact(5)).unless(unless("owner:eve"))).await?;
    ensure_eq!(trial.read_log().await?.len(), 6, "events after the deletion");
    trial.append(trial.one(BOB, exact(5)).unless(unless("owner:ada"))).await?;
    Ok(())
}

/// Of 16 that delete a stream at once, one does; the others learn that it is deleted.
pub(crate) async fn one_of_sixteen_deletes(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(122).await?;
    for round in 0..6 {
        let id = format!("account-{round}");
        trial.grow(&id, 2).await?;
        let expected = if round % 2 == 0 { ExpectedVersion::Any } else { exact(2) };
        let rivals: Vec<_> = (0..16).map(|_| trial.deletion(&id, expected)).collect();
        let outcomes = at_once(&trial, &rivals).await?;
        let winners = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        ensure_eq!(winners, 1, "deletions of {id} that were stored");
        for lost in outcomes.into_iter().filter_map(Result::err) {
            match lost {
                AppendError::Conflict(lost) if lost.deleted_at.is_some() => {
                    ensure_eq!(lost.actual.value(), 3, "the version in the losers' errors");
                }
                other => return Err(Stop::failed(format!("a loser was told {other:?}"))),
            }
        }
    }
    Ok(())
}

/// A deletion, writes to its stream and claims of its tag arrive together. Each outcome is that of
/// the members one after another.
pub(crate) async fn a_deletion_among_others_is_one_of_them(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(123).await?;
    for round in 0..8 {
        let id = format!("account-{round}");
        let label = format!("email:{round}");
        let first = trial.tagged(&[&label]);
        trial.append(AppendBatch::new().write(stream(&id), exact(0), [first])).await?;
        let group: Vec<_> = (0..12).map(|at| member(&trial, &id, &label, at)).collect();
        let outcomes = at_once(&trial, &group).await?;
        let stored = |at: &usize| outcomes[*at].as_ref().ok().map(|it| it.first);
        let deletion = stored(&0);
        ensure!(deletion.is_some(), "the deletion was answered with {:?}", outcomes[0]);
        let claims: Vec<_> =
            (1..12).filter(|at| at % 3 == 1).filter_map(|at| stored(&at)).collect();
        ensure!(claims.len() <= 1, "claims of {label} at {claims:?}");
        ensure!(
            claims.iter().all(|claim| Some(*claim) > deletion),
            "a claim of {label} at {claims:?}, and the deletion that freed it at {deletion:?}"
        );
        let kept = trial.read(ReadQuery::stream(stream(&id))).await?;
        let kept: Vec<_> = kept.iter().map(RecordedEvent::position).collect();
        let writes = (1..12).filter(|at| at % 3 != 1).filter_map(|at| stored(&at));
        let mut wanted: Vec<_> = writes.filter(|at| Some(*at) > deletion).chain(deletion).collect();
        wanted.sort_unstable();
        ensure_eq!(kept, wanted, "positions that are kept of {id}");
    }
    trial.read_log().await.map(drop)
}

fn member(trial: &Trial, id: &str, label: &str, at: usize) -> AppendBatch {
    match at {
        0 => trial.deletion(id, ExpectedVersion::Any),
        _ if at % 3 == 1 => AppendBatch::new()
            .write(stream(&format!("{id}.{at}")), exact(0), [trial.tagged(&[label])])
            .unless(AppendCondition {
                fail_if_events_match: Query::tag(tag(label)),
                after: Position::ZERO,
            }),
        _ if at % 3 == 2 => trial.one(id, ExpectedVersion::Any),
        _ => trial.one(id, EXISTS),
    }
}

/// Repeated, marked or not, a deletion gets its first answer and does not delete what came later.
pub(crate) async fn a_repeated_deletion_is_answered_as_the_first_time(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    for (id, expected) in [(ADA, exact(2)), (BOB, ExpectedVersion::Any)] {
        trial.grow(id, 2).await?;
        let batch = trial.deletion(id, expected).write(
            stream("bank-main"),
            ExpectedVersion::Any,
            trial.events(1),
        );
        let first = trial.append(batch.clone()).await?;
        for again in [batch.clone(), batch.clone().repeated()] {
            let answer = trial.log().append(again).await?;
            ensure_eq!(answer, first.clone().replayed(), "answer to a repeated deletion of {id}");
        }
        trial.grow(id, 2).await?;
        let answer = trial.log().append(batch.repeated()).await?;
        ensure_eq!(answer, first.replayed(), "answer to a deletion that is repeated later");
        let kept = trial.read(ReadQuery::stream(stream(id))).await?;
        ensure_eq!(kept.len(), 3, "events of {id}: the deletion and what came after it");
    }
    Ok(())
}

/// A stream is deleted and begun again while the log is read. A page of the whole log shows the
/// deletion, or what it erased, and never both.
pub(crate) async fn a_page_shows_a_deletion_or_what_it_erased(bench: Bench) -> CaseResult {
    let trial = bench.open_racing(124).await?;
    let writer = tokio::spawn(write_and_delete(trial.clone()));
    while !writer.is_finished() {
        let page = trial.page(ReadQuery::log()).await?;
        let deletion = page.events.iter().rev().find(|event| event.is_deletion());
        let oldest = page.events.first().map(RecordedEvent::position);
        ensure!(
            deletion.is_none() || deletion.map(RecordedEvent::position) == oldest,
            "a page shows the deletion at {:?} and the event at {oldest:?}, which it erased",
            deletion.map(RecordedEvent::position)
        );
        tokio::task::yield_now().await;
    }
    writer.await.map_err(|e| Stop::failed(format!("the writer panicked: {e}")))?
}

async fn write_and_delete(trial: Trial) -> CaseResult {
    for _ in 0..16 {
        trial.grow(ADA, 2).await?;
        trial.delete(ADA).await?;
    }
    Ok(())
}

/// A deletion outlives a restart with all that it means.
pub(crate) async fn a_deletion_is_kept_after_reopening(bench: Bench) -> CaseResult {
    let trial = bench.open_durable().await?;
    trial.grow(ADA, 1).await?;
    trial.grow(BOB, 1).await?;
    for id in [BOB, ADA] {
        trial.delete(id).await?;
    }
    let before = trial.info(ADA).await?;
    let trial = trial.reopen().await?;
    ensure_eq!(trial.info(ADA).await?, before, "stream_info after reopening");
    let walk = trial.walk(ReadQuery::log()).await?;
    let erased: Vec<_> = walk.erased.iter().map(|position| position.value()).collect();
    ensure_eq!((walk.head, erased), (Position::new(4), vec![1, 2]), "head and erased positions");
    ensure!(walk.events.iter().all(RecordedEvent::is_deletion), "only deletions are left");
    trial.conflicts(trial.one(ADA, exact(1)), ADA, exact(1), 2).await?;
    trial.append(trial.one(ADA, exact(2))).await?;
    Ok(())
}
