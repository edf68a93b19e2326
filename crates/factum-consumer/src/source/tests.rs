//! The scope that a consumer reads, if it handles deletions.

use factum_kernel::{Position, Tag};

use super::*;

/// A query of many items, each with a number of types and perhaps a tag.
fn query(items: usize, types: usize, is_tagged: bool) -> Scope {
    let name = |item: usize, at: usize| EventName::parse(&format!("a.b{item}-{at}")).unwrap();
    let item = |at: usize| QueryItem {
        types: (0..types).map(|of| name(at, of)).collect(),
        tags: is_tagged.then(|| Tag::new("a", "b").unwrap()).into_iter().collect(),
    };
    Scope::Query(Query::new((0..items).map(item)))
}

#[tokio::test]
async fn a_store_reads_every_query_with_the_deletions() {
    let store = Arc::new(factum_memory::MemoryStore::new());
    let kernel = Kernel::new(store.clone(), store);
    let max = QUERY_ITEMS_MAX;
    let all = [
        (query(1, 1, true), true),
        (query(max - 1, max, true), true),
        (query(max, 1, false), true),
        (query(max, max - 1, false), true),
        // No item has room for another type: the whole log is read.
        (query(max, max, false), false),
        (query(max, 1, true), false),
        (query(max, 0, false), false),
    ];
    for (scope, is_query) in all {
        let read = match with_deletions(&scope) {
            Scope::Query(query) => {
                assert!(is_query && query.matches(EventName::STREAM_DELETED.as_str(), []));
                ReadQuery::matching(query)
            }
            scope => {
                assert!(!is_query, "{scope:?}");
                ReadQuery::log()
            }
        };
        kernel.events().read(read.after(Position::ZERO)).await.unwrap();
    }
    assert_eq!(with_deletions(&Scope::Log), Scope::Log);
}
