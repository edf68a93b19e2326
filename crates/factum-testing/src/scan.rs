//! Reads of a whole log, for tests that look at all of it.

use std::collections::HashMap;

use factum_kernel::{EventStore, Page, Position, ReadQuery, RecordedEvent, StreamVersion};

/// Every page of a read, to its end.
///
/// # Panics
/// If the store does not answer.
pub async fn pages(store: &dyn EventStore, query: ReadQuery) -> Vec<Page> {
    let mut pages = Vec::new();
    let mut next = Some(query);
    while let Some(query) = next {
        let page = store.read(query.clone()).await.expect("the store answers a read");
        next = query.next(&page);
        pages.push(page);
    }
    pages
}

/// The positions of all events of a read, in its order.
///
/// # Panics
/// If the store does not answer.
pub async fn positions(store: &dyn EventStore, query: ReadQuery) -> Vec<u64> {
    let pages = pages(store, query).await;
    pages.iter().flat_map(|page| &page.events).map(|event| event.position().value()).collect()
}

/// Checks the whole log, and returns its last position. Positions, erased ones included, must be 1,
/// 2, 3, ...; if nothing is erased, the versions of each stream too.
///
/// # Panics
/// If there is a gap, or an event twice; or if the store does not answer.
pub async fn check_log(store: &dyn EventStore) -> Position {
    let mut last = Position::ZERO;
    let mut is_whole = true;
    let mut versions = HashMap::new();
    for page in pages(store, ReadQuery::log()).await {
        let erased = page.erased.iter().map(|range| (range.first, range.last));
        let events = page.events.iter().map(|event| (event.position(), event.position()));
        let mut covered: Vec<_> = erased.chain(events).collect();
        covered.sort_unstable();
        for (first, through) in covered {
            assert_eq!(first, last.next(), "a hole in the log, or a position twice");
            last = through;
        }
        assert_eq!(last, page.scanned_through, "a hole at the end of a page");
        is_whole &= page.erased.is_empty();
        page.events.iter().for_each(|event| check_version(&mut versions, event, is_whole));
    }
    last
}

/// Checks that an event's version follows the one before it in its stream.
fn check_version(
    versions: &mut HashMap<String, StreamVersion>,
    event: &RecordedEvent,
    is_whole: bool,
) {
    let stream = event.stream().to_string();
    let before = versions.insert(stream, event.version()).unwrap_or_default();
    let follows =
        if is_whole { event.version() == before.next() } else { event.version() > before };
    assert!(follows, "version {} follows {before} in {}", event.version(), event.stream());
}
