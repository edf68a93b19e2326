//! Laws 9, 10 and 12: the state after closing and opening again, reads right after a write, and
//! time.

use std::{sync::Arc, time::Duration};

use factum_kernel::{
    AppendBatch, AppendError, Clock, ExpectedRevision, ExpectedVersion, Kernel, KeyRange, Position,
    Query, ReadError, ReadQuery, RecordedEvent, ScanQuery, Scope, StoreErrorKind, SubscribeFrom,
    Subscription, Timestamp, WriteBatch,
};

use super::{
    failure::{CaseResult, Stop, ensure, ensure_eq},
    trial::{Bench, Trial, exact, stream, tag},
    winner::at_once,
};
use crate::clock::VirtualClock;

const ADA: &str = "account-ada";
/// The longest time until the head reaches its watchers.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// Events, streams, documents, head and lineage are unchanged, however often the store is opened,
/// and appends go on where they were.
pub(crate) async fn everything_is_there_after_reopening(bench: Bench) -> CaseResult {
    let mut trial = bench.open_durable().await?;
    for round in 1..=3 {
        trial.grow(ADA, 2).await?;
        let event = trial.tagged(&["owner:bob"]);
        let batch = AppendBatch::new().write(stream("account-bob"), exact(round - 1), [event]);
        trial.append(batch).await?;
        let before = everything(&trial).await?;
        trial = trial.reopen().await?;
        let after = everything(&trial).await?;
        ensure!(before == after, "before closing there was {before:?}, after it {after:?}");
        ensure_eq!(trial.head().await?, Position::new(round * 3), "head after reopening");
    }
    Ok(())
}

/// Everything that a log shows.
async fn everything(trial: &Trial) -> CaseResult<impl PartialEq + std::fmt::Debug + use<>> {
    let log = trial.walk(ReadQuery::log()).await?;
    let tagged = trial.read(ReadQuery::matching(Query::tag(tag("owner:bob")))).await?;
    let infos = (trial.info(ADA).await?, trial.info("account-bob").await?);
    Ok((log.events, log.lineage, log.head, tagged, infos))
}

/// After opening, a reader that waits for the head does not wait for an append.
pub(crate) async fn the_head_is_known_after_reopening(bench: Bench) -> CaseResult {
    let trial = bench.open_durable().await?;
    trial.grow(ADA, 3).await?;
    head_reaches(&trial.reopen().await?, 3).await
}

/// Documents keep values and revisions.
pub(crate) async fn documents_are_there_after_reopening(bench: Bench) -> CaseResult {
    let trial = bench.open_durable().await?;
    let put = |key: &'static str, value: &'static str| {
        WriteBatch::new().put(key, ExpectedRevision::Any, value)
    };
    let documents = &trial.stores.documents;
    documents.write(put("a", "1")).await?;
    documents.write(put("b", "2")).await?;
    documents.write(put("a", "3")).await?;
    let last = documents.write(put("gone", "4").remove("c", ExpectedRevision::Absent)).await?;
    documents.clear(KeyRange::prefix("gone")).await?;
    let before = documents.scan(ScanQuery::new(KeyRange::all())).await?;
    ensure_eq!(before.documents.len(), 2, "documents before closing");
    let trial = trial.reopen().await?;
    let documents = &trial.stores.documents;
    let after = documents.scan(ScanQuery::new(KeyRange::all())).await?;
    ensure_eq!(after.documents, before.documents, "documents after reopening");
    let next = documents.write(put("d", "5")).await?;
    ensure!(next > last, "revision {next} after reopening, {last} before: it is used again");
    Ok(())
}

/// A store that was opened in the meantime recognises a retry.
pub(crate) async fn a_retry_is_recognised_after_reopening(bench: Bench) -> CaseResult {
    let trial = bench.open_durable().await?;
    let marked = trial.one(ADA, ExpectedVersion::Any);
    let stale = trial.one("account-bob", exact(0));
    let first = trial.append(marked.clone()).await?;
    let second = trial.append(stale.clone()).await?;
    let trial = trial.reopen().await?;
    for (batch, answer) in [(marked.repeated(), first), (stale, second)] {
        let again = trial.log().append(batch).await?;
        ensure_eq!(again, answer.replayed(), "answer to a batch repeated after reopening");
    }
    ensure_eq!(trial.read_log().await?.len(), 2, "events in the log");
    Ok(())
}

/// `close` lets accepted work finish: acknowledged events are there, and nothing comes later.
pub(crate) async fn close_finishes_what_was_accepted(bench: Bench) -> CaseResult {
    for seed in 0..4 {
        close_amidst_appends(bench.open_durable_racing(91 + seed).await?, seed).await?;
    }
    Ok(())
}

async fn close_amidst_appends(trial: Trial, stored_before: u64) -> CaseResult {
    let batches: Vec<_> = (0..24).map(|at| trial.one(&format!("account-{at}"), exact(0))).collect();
    let appends = tokio::spawn({
        let trial = trial.clone();
        let batches = batches.clone();
        async move { at_once(&trial, &batches).await }
    });
    while trial.head().await?.value() <= stored_before {
        tokio::task::yield_now().await;
    }
    trial.log().close().await?;
    let found = trial.clone().reopen().await?.read_log().await?;
    let outcomes = appends.await.map_err(|e| Stop::failed(format!("appends panicked: {e}")))??;
    for (batch, outcome) in batches.iter().zip(outcomes) {
        let id = batch.events().next().map(|event| event.id);
        let there = found.iter().any(|event| Some(event.id()) == id);
        match outcome {
            Ok(answer) => {
                let at = answer.first;
                ensure!(there, "the event at position {at} was acknowledged after close returned");
            }
            Err(AppendError::Store(error)) if error.kind() == StoreErrorKind::Closed => {
                ensure!(!there, "an append refused as closed was stored");
            }
            Err(other) => return Err(other.into()),
        }
    }
    Ok(())
}

/// A closed store refuses appends, and closing again does nothing.
pub(crate) async fn a_closed_store_refuses(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow(ADA, 1).await?;
    trial.log().close().await?;
    trial.log().close().await?;
    match trial.log().append(trial.one(ADA, exact(1))).await {
        Err(AppendError::Store(error)) if error.kind() == StoreErrorKind::Closed => Ok(()),
        other => Err(Stop::failed(format!("an append after close was answered with {other:?}"))),
    }
}

/// Closing wakes a waiting subscription, which finds the store closed long before it would look
/// again.
pub(crate) async fn closing_ends_subscriptions(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow(ADA, 1).await?;
    // No code moves this clock, so a waiting subscription never looks by itself.
    let clock = VirtualClock::new(Timestamp::EPOCH);
    let kernel = Kernel::new(trial.stores.events.clone(), trial.stores.documents.clone());
    let kernel = kernel.with_clock(Arc::new(clock.clone()));
    let mut events = Subscription::new(&kernel, Scope::Log, SubscribeFrom::Start);
    let ended = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Err(error) = event {
                return Some(error);
            }
        }
        None
    });
    clock.until_sleeping(1).await;
    trial.log().close().await?;
    match tokio::time::timeout(HEAD_TIME_MAX, ended).await {
        Ok(Ok(Some(ReadError::Store(error)))) if error.kind() == StoreErrorKind::Closed => Ok(()),
        Ok(other) => {
            Err(Stop::failed(format!("a subscription ended by the closing with {other:?}")))
        }
        Err(_) => Err(Stop::failed("a subscription that waits does not hear of the closing")),
    }
}

/// After an append has returned, every read sees it, and so does `stream_info`.
pub(crate) async fn an_acknowledged_event_is_read_at_once(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let category = factum_kernel::Category::new("account").expect("a valid name");
    for round in 1..=20_u64 {
        let event = trial.tagged(&["owner:ada"]);
        let id = event.id;
        let batch = AppendBatch::new().write(stream(ADA), exact(round - 1), [event]);
        trial.append(batch).await?;
        for query in [
            ReadQuery::log(),
            ReadQuery::stream(stream(ADA)),
            ReadQuery::category(category.clone()),
            ReadQuery::matching(Query::tag(tag("owner:ada"))),
        ] {
            let query = query.backward().with_events_max(1);
            let page = trial.page(query.clone()).await?;
            let last = page.events.first().map(RecordedEvent::id);
            ensure_eq!(last, Some(id), "the last event by {query:?} after append {round}");
            ensure_eq!(page.head.value(), round, "head after append {round}");
        }
        ensure_eq!(trial.version(ADA).await?, round, "version after append {round}");
    }
    Ok(())
}

/// The watched head reaches every acknowledged position.
pub(crate) async fn the_head_wakes_readers(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let mut head = trial.log().head();
    let waiting =
        tokio::spawn(async move { head.wait_for(|head| head.value() >= 3).await.is_ok() });
    trial.grow(ADA, 3).await?;
    let woken = tokio::time::timeout(HEAD_TIME_MAX, waiting).await;
    ensure!(matches!(woken, Ok(Ok(true))), "a reader that waits for position 3 was not woken");
    head_reaches(&trial, 3).await
}

/// A new watcher finds the existing head.
async fn head_reaches(trial: &Trial, position: u64) -> CaseResult {
    let mut head = trial.log().head();
    let reached = head.wait_for(|head| head.value() >= position);
    match tokio::time::timeout(HEAD_TIME_MAX, reached).await {
        Ok(Ok(head)) => {
            ensure_eq!(head.value(), position, "the watched head");
            Ok(())
        }
        _ => Err(Stop::failed(format!("the watched head does not reach position {position}"))),
    }
}

/// One log has one lineage, two logs have two.
pub(crate) async fn each_log_has_a_lineage_of_its_own(bench: Bench) -> CaseResult {
    let one = bench.open().await?;
    let two = bench.open().await?;
    let first = one.page(ReadQuery::log()).await?.lineage;
    one.grow(ADA, 1).await?;
    ensure_eq!(one.page(ReadQuery::log()).await?.lineage, first, "lineage after an append");
    ensure!(two.page(ReadQuery::log()).await?.lineage != first, "two logs have one lineage");
    Ok(())
}

/// Times come from the store's clock, and stay when the clock goes back.
pub(crate) async fn time_never_goes_back(bench: Bench) -> CaseResult {
    let (trial, clock) = bench.open_with_clock().await?;
    let start = clock.now();
    let minute = Duration::from_secs(60);
    let later = start.saturating_add(minute);
    let plan = [
        (start, start),
        (later, later),
        (start, later),
        (start.saturating_sub(minute), later),
        (later.saturating_add(minute), later.saturating_add(minute)),
    ];
    for (round, (now, recorded)) in plan.into_iter().enumerate() {
        clock.set(now);
        let appended = trial.append(trial.one(&format!("account-{round}"), exact(0))).await?;
        ensure_eq!(appended.recorded_at, recorded, "time of append {round}, made at {now}");
    }
    let times: Vec<_> = trial.read_log().await?.iter().map(RecordedEvent::recorded_at).collect();
    let wanted: Vec<_> = plan.iter().map(|(_, recorded)| *recorded).collect();
    ensure_eq!(times, wanted, "times in the log");
    Ok(())
}

/// Times stay when the store is opened again with a clock that is behind.
pub(crate) async fn time_never_goes_back_after_reopening(bench: Bench) -> CaseResult {
    let trial = bench.open_durable().await?;
    let Some(clock) = trial.virtual_clock() else {
        return Err(Stop::Skipped("the store has a clock of its own"));
    };
    trial.grow("account-bob", 1).await?;
    clock.advance(Duration::from_secs(60));
    trial.grow(ADA, 1).await?;
    let last = trial.read_log().await?[1].recorded_at();
    clock.set(last.saturating_sub(Duration::from_secs(3_600)));
    let trial = trial.reopen().await?;
    let appended = trial.append(trial.one(ADA, exact(1))).await?;
    ensure_eq!(appended.recorded_at, last, "time by a clock an hour behind, after reopening");
    Ok(())
}
