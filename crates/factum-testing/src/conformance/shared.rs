//! Two handles on one log, for stores that claim to allow writers in other processes.

use std::time::Duration;

use factum_kernel::{
    AppendBatch, AppendCondition, AppendError, ChangeError, ExpectedRevision, ExpectedVersion,
    KeyRange, Position, Query, ReadQuery, StoreError, StoreErrorKind, StreamChange, StreamVersion,
    WriteBatch, WriteError,
};

use super::{
    failure::{CaseResult, ensure, ensure_eq},
    race,
    trial::{Bench, Trial, exact, stream, tag},
};

const ADA: &str = "account-ada";

/// Each handle sees at once what the other stored, in the same log.
pub(crate) async fn two_handles_share_one_log(bench: Bench) -> CaseResult {
    let (one, two) = bench.open_shared().await?;
    for round in 0..6_u64 {
        let (writer, reader) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let appended = writer.append(writer.one(ADA, exact(round))).await?;
        ensure_eq!(appended.first.value(), round + 1, "position by the other handle");
        ensure_eq!(reader.version(ADA).await?, round + 1, "version by the other handle");
        let mine = writer.walk(ReadQuery::log()).await?;
        let other = reader.walk(ReadQuery::log()).await?;
        ensure!(mine.events == other.events, "two handles read two logs");
        ensure_eq!(mine.lineage, other.lineage, "lineage by the other handle");
        let stale = reader.one(ADA, exact(round));
        reader.conflicts(stale, ADA, exact(round), round + 1).await?;
    }
    Ok(())
}

/// A handle for reading sees at once what is stored, and refuses every change.
pub(crate) async fn a_reader_sees_what_is_stored_and_changes_nothing(bench: Bench) -> CaseResult {
    let (writer, reader) = bench.open_with_reader().await?;
    let put = |value: &str| WriteBatch::new().put("key", ExpectedRevision::Any, value.to_owned());
    for round in 1..=6_u64 {
        writer.append(writer.one(ADA, exact(round - 1))).await?;
        writer.stores.documents.write(put(&round.to_string())).await?;
        let seen = reader.walk(ReadQuery::log()).await?;
        ensure!(seen.events == writer.read_log().await?, "a reader reads another log");
        ensure_eq!(reader.version(ADA).await?, round, "version that a reader sees");
        let value = reader.stores.documents.get(b"key").await?.map(|document| document.value);
        ensure_eq!(value, Some(round.to_string().into()), "document that a reader sees");
        ensure_eq!(reader.log().head().borrow().value(), round, "head of a reader after a page");
    }
    reader.refuses("an append by a reader", reader.one(ADA, exact(6))).await?;
    let truncation = StreamChange::TruncateBefore(StreamVersion::new(2));
    let is_invalid = |error: &StoreError| error.kind() == StoreErrorKind::Invalid;
    let truncated = reader.log().change(&stream(ADA), truncation).await;
    let is_refused = matches!(&truncated, Err(ChangeError::Store(error)) if is_invalid(error));
    ensure!(is_refused, "a truncation by a reader was answered with {truncated:?}");
    let written = reader.stores.documents.write(put("reader's")).await;
    let is_refused = matches!(&written, Err(WriteError::Store(error)) if is_invalid(error));
    ensure!(is_refused, "a write by a reader was answered with {written:?}");
    let cleared = reader.stores.documents.clear(KeyRange::all()).await;
    let is_refused = matches!(&cleared, Err(error) if is_invalid(error));
    ensure!(is_refused, "a clearing by a reader was answered with {cleared:?}");
    ensure_eq!(writer.read_log().await?.len(), 6, "events after a reader's changes");
    let left = writer.stores.documents.get(b"key").await?.map(|document| document.value);
    ensure_eq!(left, Some("6".into()), "document after a reader's changes");
    // Without a read of the reader's own.
    let mut head = reader.log().head();
    writer.append(writer.one(ADA, exact(6))).await?;
    let reached = tokio::time::timeout(Duration::from_secs(5), head.wait_for(|it| it.value() == 7));
    ensure!(matches!(reached.await, Ok(Ok(_))), "a reader's head does not follow the writer");
    reader.log().close().await?;
    writer.append(writer.one(ADA, exact(7))).await?;
    Ok(())
}

/// Many callers that open a new log at once make one log, which holds everything that each of them
/// stored.
pub(crate) async fn many_that_open_a_new_log_at_once_make_one(bench: Bench) -> CaseResult {
    let openings = bench.open_at_once(8, 132).await?;
    let tasks = openings.into_iter().enumerate().map(|(at, opening)| async move {
        let handle = opening.await?;
        handle.append(handle.one(&format!("account-{at}"), exact(0))).await?;
        Ok(handle)
    });
    let handles = race::all(tasks).await?;
    let first = handles[0].walk(ReadQuery::log()).await?;
    ensure_eq!(first.events.len(), handles.len(), "events of as many handles, each with one");
    for other in &handles[1..] {
        let other = other.walk(ReadQuery::log()).await?;
        ensure_eq!(other.lineage, first.lineage, "lineage by another handle");
        ensure!(other.events == first.events, "two handles read two logs");
    }
    Ok(())
}

/// The watched head follows the appends of other handles.
pub(crate) async fn the_head_follows_other_handles(bench: Bench) -> CaseResult {
    let (one, two) = bench.open_shared().await?;
    let mut head = two.log().head();
    one.grow(ADA, 3).await?;
    let reached = head.wait_for(|head| head.value() >= 3);
    let reached = tokio::time::timeout(Duration::from_secs(5), reached).await;
    ensure!(matches!(reached, Ok(Ok(_))), "the head does not reach what another handle stored");
    Ok(())
}

/// A retry through another handle is recognised, by the mark and by the version.
pub(crate) async fn a_retry_is_recognised_by_another_handle(bench: Bench) -> CaseResult {
    let (one, two) = bench.open_shared().await?;
    let marked = one.one(ADA, ExpectedVersion::Any);
    let stale = one.one("account-bob", exact(0));
    let first = one.append(marked.clone()).await?;
    let second = one.append(stale.clone()).await?;
    for (batch, answer) in [(marked.repeated(), first), (stale, second)] {
        let again = two.log().append(batch).await?;
        ensure_eq!(again, answer.replayed(), "answer to a batch repeated by another handle");
    }
    Ok(())
}

/// 16 rivals, eight on each handle: one winner per version, one owner per tag, no gap.
pub(crate) async fn rivals_on_two_handles_have_one_winner(bench: Bench) -> CaseResult {
    let (one, two) = bench.open_shared_racing(131).await?;
    for round in 0..5_u64 {
        let wins = race_on_both(&one, &two, move |trial, _| trial.one(ADA, exact(round))).await?;
        ensure_eq!(wins, 1, "winners on two handles at version {round}");
        let label = format!("email:{round}");
        let wins = race_on_both(&one, &two, move |trial, at| {
            let query = Query::tag(tag(&label));
            AppendBatch::new()
                .write(stream(&format!("user-{round}.{at}")), exact(0), [trial.tagged(&[&label])])
                .unless(AppendCondition { fail_if_events_match: query, after: Position::ZERO })
        })
        .await?;
        ensure_eq!(wins, 1, "claims of one tag on two handles");
    }
    // The walk checks that there is no gap.
    ensure_eq!(one.read_log().await?.len(), 10, "events after 5 rounds");
    ensure!(one.read_log().await? == two.read_log().await?, "two handles read two logs");
    Ok(())
}

async fn race_on_both(
    one: &Trial,
    two: &Trial,
    batch: impl Fn(&Trial, usize) -> AppendBatch,
) -> CaseResult<usize> {
    let tasks: Vec<_> = (0..16)
        .map(|at| {
            let trial = if at % 2 == 0 { one.clone() } else { two.clone() };
            let batch = batch(&trial, at);
            async move {
                match trial.log().append(batch).await {
                    Ok(_) => Ok(1),
                    Err(AppendError::Conflict(_) | AppendError::ConditionFailed { .. }) => Ok(0),
                    Err(other) => Err(other.into()),
                }
            }
        })
        .collect();
    Ok(race::all(tasks).await?.into_iter().sum())
}

/// Events that one handle erases are gone for the other, and numbers go on.
pub(crate) async fn erasure_reaches_other_handles(bench: Bench) -> CaseResult {
    let (one, two) = bench.open_shared().await?;
    one.grow(ADA, 3).await?;
    ensure_eq!(two.read_log().await?.len(), 3, "events by the other handle");
    one.change(ADA, StreamChange::TruncateBefore(StreamVersion::new(3))).await?;
    ensure_eq!(two.read_log().await?.len(), 1, "events by the other handle after truncation");
    one.delete(ADA).await?;
    let left = two.read_log().await?;
    ensure_eq!(left.len(), 1, "events by the other handle after deletion");
    ensure!(left[0].is_deletion(), "the event that is left is the deletion");
    two.conflicts(two.one(ADA, exact(3)), ADA, exact(3), 4).await?;
    let appended = two.append(two.one(ADA, exact(4))).await?;
    ensure_eq!(appended.first, Position::new(5), "position after the other handle's deletion");
    Ok(())
}

/// Documents are shared as well: seen at once, one winner, no revision twice.
pub(crate) async fn documents_are_shared_by_handles(bench: Bench) -> CaseResult {
    let (one, two) = bench.open_shared().await?;
    let one = &one.stores.documents;
    let two = &two.stores.documents;
    let mut last = factum_kernel::Revision::ZERO;
    for round in 0..6 {
        let (writer, reader) = if round % 2 == 0 { (one, two) } else { (two, one) };
        let expected = ExpectedRevision::Exact(last);
        let batch = WriteBatch::new().put("lease", expected, format!("{round}"));
        let revision = writer.write(batch.clone()).await?;
        ensure!(revision > last, "revision {revision} after {last}, by the other handle");
        let seen = reader.get(b"lease").await?.map(|document| document.revision);
        ensure_eq!(seen, Some(revision), "revision that the other handle sees");
        ensure!(reader.write(batch).await.is_err(), "two handles won one revision");
        last = revision;
    }
    Ok(())
}
