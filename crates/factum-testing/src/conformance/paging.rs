//! Reads at every boundary: scopes, directions, beginnings and sizes, compared with a filter over
//! the whole log.

use std::time::Duration;

use factum_kernel::{
    AppendBatch, Category, Direction, EventName, ExpectedVersion, Position, Query, QueryItem,
    ReadFrom, ReadQuery, RecordedEvent, StoreErrorKind, StreamChange, StreamVersion,
};

use super::{
    failure::{CaseResult, Stop, Within, ensure, ensure_eq},
    trial::{Bench, Trial, stream, tag},
    walk::is_meant,
};

/// A log with a bit of everything: three categories (one of them the system's), types, tags,
/// origins, times, a truncated stream and a deleted one.
async fn mixed_log(bench: &Bench) -> CaseResult<Trial> {
    let trial = bench.open().await?;
    let names = ["account.deposited", "account.withdrawn", "bank.audited"];
    for round in 0..16_usize {
        let id =
            ["account-ada", "account-ada-2", "account-bob", "bank-main", "$queue-1"][round % 5];
        let mut event = trial.named(names[round % 3]);
        event.tags = (0..round % 3).map(|at| tag(&format!("part:{at}"))).collect();
        event.metadata = event.metadata.with_origin(["east", "west"][round / 2 % 2]);
        let batch = AppendBatch::new().write(stream(id), ExpectedVersion::Any, [event]);
        trial.append(batch).await?;
        if round % 4 == 3 {
            trial.sleep(Duration::from_secs(1)).await;
        }
    }
    let truncate = StreamChange::TruncateBefore(StreamVersion::new(3));
    trial.change("account-ada", truncate).await?;
    trial.delete("account-bob").await?;
    Ok(trial)
}

fn scopes() -> Vec<ReadQuery> {
    let item = QueryItem {
        types: vec![EventName::from_static("account.withdrawn")],
        tags: vec![tag("part:0")],
    };
    let tagged = |tags: &[&str]| QueryItem {
        types: vec![],
        tags: tags.iter().map(|text| tag(text)).collect(),
    };
    let any_of_two = Query::new([item, tagged(&["part:1"])]);
    let category = |name: &str| ReadQuery::category(Category::parse(name).expect("a valid name"));
    vec![
        ReadQuery::log(),
        ReadQuery::stream(stream("account-ada")),
        ReadQuery::stream(stream("bank-main")),
        ReadQuery::stream(stream("account-bob")),
        ReadQuery::stream(stream("account-nobody")),
        category("account"),
        category("$queue"),
        category("nothing"),
        ReadQuery::matching(Query::tag(tag("part:0"))),
        ReadQuery::matching(any_of_two),
        ReadQuery::matching(Query::new([tagged(&["part:0", "part:1"])])),
        ReadQuery::matching(Query::new([tagged(&["part:0", "part:9"])])),
        ReadQuery::matching(Query::default()),
        ReadQuery::log().with_origin("east"),
        ReadQuery::category(Category::new("account").expect("a valid name")).with_origin("west"),
        ReadQuery::log().with_origin("nowhere"),
    ]
}

/// Walks the query forward or backward and compares it with the filtered log.
async fn check_read(
    trial: &Trial,
    log: &[RecordedEvent],
    query: ReadQuery,
    direction: Direction,
) -> CaseResult {
    // `backward` moves a beginning at the start to the end, so the beginning is set again.
    let from = query.from;
    let query = match direction {
        Direction::Forward => query,
        Direction::Backward => query.backward().from(from),
    };
    let mut wanted: Vec<_> = log.iter().filter(|event| is_meant(&query, event)).collect();
    if direction == Direction::Backward {
        wanted.reverse();
    }
    let walk = trial.walk(query.clone()).await?;
    let ids = |events: &[&RecordedEvent]| -> Vec<u64> {
        events.iter().map(|event| event.position().value()).collect()
    };
    let found: Vec<_> = walk.events.iter().collect();
    ensure_eq!(ids(&found), ids(&wanted), "positions read by {query:?}");
    ensure!(found == wanted, "{query:?} finds other contents than a read of the whole log");
    ensure_eq!(walk.head, Position::new(17), "head on the pages of {query:?}");
    Ok(())
}

/// Numbers at the end of their range, signed and unsigned. They are only far away.
const FAR: [u64; 4] = [i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX - 1, u64::MAX];

const BOTH: [Direction; 2] = [Direction::Forward, Direction::Backward];

/// Every scope, in both directions, in pages of 1, 2, 3 and all events, and of one byte, each of
/// which holds one event.
pub(crate) async fn every_scope_reads_alike_in_pages_of_any_size(bench: Bench) -> CaseResult {
    let trial = mixed_log(&bench).await?;
    let log = trial.read_log().await?;
    ensure_eq!(log.len(), 12, "events in the log");
    for query in scopes() {
        for events_max in [1, 2, 3, 100, usize::MAX] {
            let query = query.clone().with_events_max(events_max);
            check_read(&trial, &log, query.clone(), Direction::Forward).await?;
            check_read(&trial, &log, query.from(ReadFrom::End), Direction::Backward).await?;
        }
        let query = query.with_bytes_max(1);
        check_read(&trial, &log, query.clone(), Direction::Forward).await?;
        check_read(&trial, &log, query.from(ReadFrom::End), Direction::Backward).await?;
    }
    Ok(())
}

/// From each position, including erased ones and those beyond the ends.
pub(crate) async fn reads_begin_at_every_position(bench: Bench) -> CaseResult {
    let trial = mixed_log(&bench).await?;
    let log = trial.read_log().await?;
    for position in (0..=19).chain(FAR) {
        for query in scopes() {
            let query = query.from(ReadFrom::Position(Position::new(position)));
            for (events_max, direction) in [(1, BOTH[0]), (1, BOTH[1]), (3, BOTH[0]), (3, BOTH[1])]
            {
                let query = query.clone().with_events_max(events_max);
                check_read(&trial, &log, query, direction).await?;
            }
        }
    }
    Ok(())
}

/// From each version of a stream, including erased ones and those beyond the ends.
pub(crate) async fn streams_are_read_from_every_version(bench: Bench) -> CaseResult {
    let trial = mixed_log(&bench).await?;
    let log = trial.read_log().await?;
    for version in (0..=6).chain(FAR) {
        let from = ReadFrom::Version(StreamVersion::new(version));
        for id in ["account-ada", "account-ada-2", "account-bob", "bank-main", "account-nobody"] {
            for (events_max, direction) in [(1, BOTH[0]), (1, BOTH[1]), (3, BOTH[0]), (3, BOTH[1])]
            {
                let query = ReadQuery::stream(stream(id)).from(from).with_events_max(events_max);
                check_read(&trial, &log, query, direction).await?;
            }
        }
    }
    Ok(())
}

/// Forward from the first event at or after a time, backward from the last at or before it.
pub(crate) async fn reads_begin_at_every_time(bench: Bench) -> CaseResult {
    let trial = mixed_log(&bench).await?;
    let log = trial.read_log().await?;
    let micro = Duration::from_micros(1);
    let mut times: Vec<_> = log.iter().map(RecordedEvent::recorded_at).collect();
    times.dedup();
    let around = times
        .iter()
        .flat_map(|time| [time.saturating_sub(micro), *time, time.saturating_add(micro)]);
    let ends = [factum_kernel::Timestamp::EPOCH, factum_kernel::Timestamp::MAX];
    for time in around.chain(ends) {
        for query in scopes() {
            let query = query.from(ReadFrom::Time(time)).with_events_max(2);
            for direction in BOTH {
                check_read(&trial, &log, query.clone(), direction).await?;
            }
        }
    }
    Ok(())
}

/// After the end there is nothing, and the page has the head; before the start too.
pub(crate) async fn reads_from_the_wrong_end_are_empty(bench: Bench) -> CaseResult {
    let trial = mixed_log(&bench).await?;
    for query in scopes() {
        let page = trial.page(query.clone().from(ReadFrom::End)).await?;
        ensure_eq!(page.events.len(), 0, "events after the end by {query:?}");
        let through = (page.scanned_through, page.head);
        let head = Position::new(17);
        ensure_eq!(through, (head, head), "scanned_through and head after the end by {query:?}");
        let before = query.clone().backward().from(ReadFrom::Start);
        ensure_eq!(trial.read(before).await?.len(), 0, "events before the start by {query:?}");
    }
    Ok(())
}

/// Pages of few bytes: never more than asked, but at least one event, however large.
pub(crate) async fn pages_are_bounded_in_bytes(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    for size in [10, 5_000, 10, 10, 3_000, 3_000, 10] {
        let mut event = trial.event();
        event.payload = vec![b'x'; size].into();
        let batch = AppendBatch::new().write(stream("account-ada"), ExpectedVersion::Any, [event]);
        trial.append(batch).await?;
    }
    let log = trial.read_log().await?;
    let total: usize = log.iter().map(RecordedEvent::size).sum();
    let mut sizes = vec![0, 1, 100, 150, 4_000, total - 1, total, usize::MAX];
    sizes.extend(log.iter().map(RecordedEvent::size));
    for bytes_max in sizes {
        for query in [ReadQuery::log(), ReadQuery::stream(stream("account-ada"))] {
            let query = query.with_bytes_max(bytes_max);
            for query in [query.clone(), query.backward()] {
                // The walk checks the size of each page.
                let place = || format!("pages of {bytes_max} bytes");
                let found = trial.read(query).await.within(place)?;
                ensure_eq!(found.len(), 7, "events in pages of {bytes_max} bytes");
            }
        }
    }
    Ok(())
}

/// A page without room, and a beginning that does not fit the scope, are invalid.
pub(crate) async fn impossible_reads_are_invalid(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    trial.grow("account-ada", 2).await?;
    let version = ReadFrom::Version(StreamVersion::new(1));
    let category = Category::new("account").expect("a valid name");
    let queries = [
        ReadQuery::log().with_events_max(0),
        ReadQuery::stream(stream("account-ada")).with_events_max(0),
        ReadQuery::log().from(version),
        ReadQuery::category(category).from(version),
        ReadQuery::matching(Query::tag(tag("a:1"))).from(version).backward(),
    ];
    for query in queries {
        match trial.log().read(query.clone()).await {
            Err(error) if error.kind() == StoreErrorKind::Invalid => {}
            other => return Err(Stop::failed(format!("{query:?} was answered with {other:?}"))),
        }
    }
    Ok(())
}

/// An empty log answers every read with nothing.
pub(crate) async fn an_empty_log_reads_as_empty(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    for query in scopes() {
        for query in [query.clone(), query.clone().from(ReadFrom::End), query.backward()] {
            let page = trial.page(query.clone()).await?;
            ensure!(query.next(&page).is_none(), "{query:?} of an empty log has a second page");
            ensure_eq!(page.events.len(), 0, "events of {query:?} in an empty log");
            ensure_eq!(page.scanned_through, Position::ZERO, "scanned_through of {query:?}");
        }
    }
    Ok(())
}
