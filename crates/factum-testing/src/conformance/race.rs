//! Many writers and readers at once; laws 3, 4, 5 and 10 as live readers see them.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use factum_kernel::{
    AppendBatch, Category, Clock, ExpectedVersion, Page, Position, Query, ReadQuery, RecordedEvent,
    SystemClock,
};
use tokio::task::JoinSet;

use super::{
    failure::{CaseResult, Stop, Within, ensure, ensure_eq},
    trial::{Bench, Trial, stream, tag},
    walk::check_page,
};
use crate::scope::in_scope;

const WRITERS: u64 = 16;
const APPENDS: u64 = 8;

/// Runs tasks at the same time and returns their results in order, or the first failure.
pub(crate) async fn all<T: Send + 'static>(
    tasks: impl IntoIterator<Item = impl Future<Output = CaseResult<T>> + Send + 'static>,
) -> CaseResult<Vec<T>> {
    let mut set = JoinSet::new();
    for (at, task) in tasks.into_iter().enumerate() {
        set.spawn(async move { (at, task.await) });
    }
    let mut results = vec![];
    while let Some(joined) = set.join_next().await {
        let (at, result) = joined.map_err(|e| Stop::failed(format!("a task panicked: {e}")))?;
        results.push((at, result?));
    }
    results.sort_by_key(|(at, _)| *at);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// A reader of the whole log that polls during the race sees every position once, in order.
pub(crate) async fn a_live_log_reader_misses_nothing(bench: Bench) -> CaseResult {
    live_readers(bench, 41, ReadQuery::log()).await
}

/// A reader of a category sees every event of it: `scanned_through` never passes an event that is
/// still to come.
pub(crate) async fn a_live_category_reader_misses_nothing(bench: Bench) -> CaseResult {
    let category = Category::new("even").expect("a valid name");
    live_readers(bench, 42, ReadQuery::category(category)).await
}

/// As for a category, by a tag.
pub(crate) async fn a_live_tag_reader_misses_nothing(bench: Bench) -> CaseResult {
    live_readers(bench, 43, ReadQuery::matching(Query::tag(tag("part:1")))).await
}

/// As for a category, by the stream that all writers share.
pub(crate) async fn a_live_stream_reader_misses_nothing(bench: Bench) -> CaseResult {
    live_readers(bench, 44, ReadQuery::stream(stream("even-shared"))).await
}

/// As for the log, by one writer's origin.
pub(crate) async fn a_live_origin_reader_misses_nothing(bench: Bench) -> CaseResult {
    live_readers(bench, 45, ReadQuery::log().with_origin("writer-3")).await
}

/// The shared state of a race's tasks.
#[derive(Debug, Default)]
struct Progress {
    /// The last acknowledged position.
    acknowledged: AtomicU64,
    done: AtomicBool,
}

async fn live_readers(bench: Bench, seed: u64, query: ReadQuery) -> CaseResult {
    let trial = bench.open_racing(seed).await?;
    let progress = Arc::new(Progress::default());
    let mut readers = JoinSet::new();
    // Pages of several sizes, because events get lost at the borders between pages.
    for events_max in [1, 3, 100] {
        let query = query.clone().with_events_max(events_max);
        readers.spawn(follow(trial.clone(), progress.clone(), query));
    }
    let writers = (0..WRITERS).map(|writer| write(trial.clone(), progress.clone(), writer));
    all(writers).await?;
    progress.done.store(true, Ordering::SeqCst);

    let log = trial.read_log().await?;
    ensure_eq!(log.len() as u64, WRITERS * APPENDS * 2, "events in the log");
    let wanted: Vec<_> = log.into_iter().filter(|event| is_wanted(&query, event)).collect();
    ensure!(!wanted.is_empty(), "the race wrote nothing for {query:?}");
    while let Some(joined) = readers.join_next().await {
        let seen = joined.map_err(|e| Stop::failed(format!("a reader panicked: {e}")))??;
        same(&seen, &wanted).within(|| format!("live reader of {query:?}"))?;
    }
    Ok(())
}

fn is_wanted(query: &ReadQuery, event: &RecordedEvent) -> bool {
    let origin = query.origin.as_ref();
    in_scope(&query.scope, event)
        && origin.is_none_or(|origin| event.metadata().origin.as_ref() == Some(origin))
}

fn same(seen: &[RecordedEvent], wanted: &[RecordedEvent]) -> CaseResult {
    for (seen, wanted) in seen.iter().zip(wanted) {
        ensure!(
            seen == wanted,
            "saw position {} ({}) where the log in the end has position {} ({})",
            seen.position(),
            seen.id(),
            wanted.position(),
            wanted.id()
        );
    }
    ensure_eq!(seen.len(), wanted.len(), "events seen");
    Ok(())
}

/// Each append holds one event for the writers' shared stream and one for a stream of its own.
async fn write(trial: Trial, progress: Arc<Progress>, writer: u64) -> CaseResult {
    let category = if writer.is_multiple_of(2) { "even" } else { "odd" };
    let own = stream(&format!("{category}-{writer}"));
    for round in 0..APPENDS {
        let mut event = trial.tagged(&[&format!("part:{}", (writer + round) % 3)]);
        event.metadata = event.metadata.with_origin(&format!("writer-{writer}"));
        let batch = AppendBatch::new()
            .write(stream("even-shared"), ExpectedVersion::Any, [trial.event()])
            .write(own.clone(), ExpectedVersion::Any, [event]);
        let last = trial.append(batch).await?.last.value();
        progress.acknowledged.fetch_max(last, Ordering::SeqCst);
    }
    Ok(())
}

/// Reads on, page by page, until the writers are done and nothing is left.
async fn follow(
    trial: Trial,
    progress: Arc<Progress>,
    query: ReadQuery,
) -> CaseResult<Vec<RecordedEvent>> {
    let mut seen: Vec<RecordedEvent> = vec![];
    let mut through = Position::ZERO;
    let mut earlier: Option<(ReadQuery, Page)> = None;
    loop {
        let done = progress.done.load(Ordering::SeqCst);
        let acknowledged = progress.acknowledged.load(Ordering::SeqCst);
        let asked = query.clone().after(through);
        let page = trial.page(asked.clone()).await?;
        check_page(&asked, &page).within(|| format!("{asked:?}"))?;
        ensure!(
            page.head.value() >= acknowledged,
            "head={} on a page that was read after position {acknowledged} was acknowledged",
            page.head
        );
        ensure!(
            page.scanned_through >= through,
            "scanned_through went back from {through} to {}",
            page.scanned_through
        );
        through = page.scanned_through;
        seen.extend(page.events.iter().cloned());
        if page.events.is_empty() && done && through >= page.head {
            return Ok(seen);
        }
        if page.events.is_empty() && through >= page.head {
            // A live reader polls; how often does not matter for what it must see.
            SystemClock.sleep(Duration::from_micros(200)).await;
        } else {
            read_again(&trial, earlier.replace((asked, page))).await?;
        }
    }
}

/// Law 5: a page that was read before reads the same now.
async fn read_again(trial: &Trial, earlier: Option<(ReadQuery, Page)>) -> CaseResult {
    let Some((asked, before)) = earlier else { return Ok(()) };
    let now = trial.page(asked.clone()).await?;
    let limit = before.scanned_through.min(now.scanned_through);
    let up_to = |page: &Page| -> Vec<_> {
        let events = page.events.iter().filter(|event| event.position() <= limit);
        events.map(|event| (event.position(), event.id())).collect()
    };
    ensure_eq!(up_to(&now), up_to(&before), "{asked:?} up to position {limit}, read again");
    Ok(())
}
