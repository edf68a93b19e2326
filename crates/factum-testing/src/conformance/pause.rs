//! Pages that pause: they end because the store has looked at many events, not because they are
//! full.

use factum_kernel::{
    AppendBatch, Direction, ExpectedVersion, NewEvent, PAGE_EVENTS_MAX, Query, QueryItem, ReadQuery,
};

use super::{
    failure::{CaseResult, ensure_eq},
    trial::{Bench, Trial, stream, tag},
};

/// The sizes of the log at which the queries are read. The log grows from one size to the next
/// until all of them pause; a store that does not pause answers with one page.
const SIZES: [usize; 2] = [300, 51_000];

/// The tags of an event by its place in the log, counted from 0. The tags `a` and `b` alternate
/// from event to event, and `c` and `d` every two events. So a search for `a` and `b` together
/// leaps through the whole log, and pauses before a search for `c` and `d` does. Every 64th event
/// has `a` and `b`, another `c` and `d`, another `e`.
fn tags_at(at: usize) -> Vec<&'static str> {
    let turn = |period: usize| (at / period).is_multiple_of(2);
    let mut tags = vec![if turn(1) { "turn:a" } else { "turn:b" }];
    tags.push(if turn(2) { "turn:c" } else { "turn:d" });
    match at % 64 {
        7 => tags.extend(["turn:a", "turn:b"]),
        39 => tags.extend(["turn:c", "turn:d"]),
        50 => tags.push("turn:e"),
        _ => {}
    }
    tags.sort_unstable();
    tags.dedup();
    tags
}

/// Appends the events of these places.
async fn grow(trial: &Trial, from: usize, to: usize) -> CaseResult {
    let limits = trial.guarantees().limits;
    let places: Vec<usize> = (from..to).collect();
    for places in places.chunks(limits.batch_events_max.min(500)) {
        let events: Vec<NewEvent> = places.iter().map(|at| trial.tagged(&tags_at(*at))).collect();
        let batch = AppendBatch::new().write(stream("turn-all"), ExpectedVersion::Any, events);
        trial.append(batch).await?;
    }
    Ok(())
}

/// Queries of two items. The item that pauses first is the first or the second of them.
fn queries() -> [[&'static [&'static str]; 2]; 4] {
    let short = &["turn:a", "turn:b"][..];
    let long = &["turn:c", "turn:d"][..];
    let never = &["turn:e"][..];
    [[short, never], [never, short], [short, long], [long, short]]
}

/// Law 4 for queries of several items: a page that pauses has looked for every item as far as it
/// says, so no event is skipped.
pub(crate) async fn a_page_pauses_where_its_first_item_does(bench: Bench) -> CaseResult {
    let trial = bench.open().await?;
    let mut size = 0;
    for next in SIZES {
        grow(&trial, size, next).await?;
        size = next;
        let mut all_pause = true;
        for items in queries() {
            for direction in [Direction::Forward, Direction::Backward] {
                all_pause &= reads_all(&trial, &items, direction, size).await?;
            }
        }
        if all_pause {
            break;
        }
    }
    Ok(())
}

/// Checks that a read finds exactly the events that match an item. Returns whether it paused.
async fn reads_all(
    trial: &Trial,
    items: &[&[&str]],
    direction: Direction,
    size: usize,
) -> CaseResult<bool> {
    let item = |tags: &&[&str]| QueryItem {
        types: vec![],
        tags: tags.iter().map(|text| tag(text)).collect(),
    };
    let query = ReadQuery::matching(Query::new(items.iter().map(item)));
    let query = query.with_events_max(PAGE_EVENTS_MAX);
    let is_meant = |at: &usize| {
        let tags = tags_at(*at);
        items.iter().any(|item| item.iter().all(|tag| tags.contains(tag)))
    };
    let mut wanted: Vec<u64> = (0..size).filter(is_meant).map(|at| at as u64 + 1).collect();
    let query = match direction {
        Direction::Forward => query,
        Direction::Backward => {
            wanted.reverse();
            query.backward()
        }
    };
    let walk = trial.walk(query).await?;
    let found: Vec<u64> = walk.events.iter().map(|event| event.position().value()).collect();
    let differs = found.iter().zip(&wanted).find(|(found, wanted)| found != wanted);
    let place = || format!("{items:?} {direction:?} in a log of {size} events");
    ensure_eq!(differs, None, "the first position that is another than wanted of {}", place());
    ensure_eq!(found.len(), wanted.len(), "events of {}", place());
    Ok(walk.pages > 1)
}
