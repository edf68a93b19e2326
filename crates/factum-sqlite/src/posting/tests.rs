use factum_backend::Candidate;
use factum_kernel::{EventName, QueryItem, Tag};
use rusqlite::Connection;

use super::*;

/// A log of `count` events: tag `a:1` on every second, `b:1` on every third. The types `x` and `y`
/// alternate, ten of each.
fn database(count: i64) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(include_str!("../schema/v1.sql")).unwrap();
    connection
        .execute_batch(
            "INSERT INTO tags VALUES (1, 'a:1'), (2, 'b:1');
             INSERT INTO types VALUES (1, 'x'), (2, 'y');",
        )
        .unwrap();
    for position in 1..=count {
        let kind = if is_x(position as u64) { 1 } else { 2 };
        let row = (position, position, kind);
        let add = "INSERT INTO events VALUES (?1, 1, ?2, ?3, 1, 0, 1, 1, x'', x'', x'', x'', 0)";
        connection.execute(add, row).unwrap();
        for (number, every) in [(1, 2), (2, 3)] {
            if position % every == 0 {
                let add = "INSERT INTO event_tags VALUES (?1, ?2)";
                connection.execute(add, [number, position]).unwrap();
            }
        }
    }
    connection
}

fn is_x(position: u64) -> bool {
    (position / 10).is_multiple_of(2)
}

fn item(types: &[&str], tags: &[&str]) -> QueryItem {
    QueryItem {
        types: types.iter().map(|name| EventName::parse(name).unwrap()).collect(),
        tags: tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect(),
    }
}

/// All matches, found by a walk that goes on after each pause.
fn walk(
    connection: &Connection,
    query: &Query,
    direction: Direction,
    budget: usize,
) -> (Vec<u64>, usize) {
    let mut found = Vec::new();
    let mut pauses = 0;
    let mut at = if direction == Direction::Forward { 1 } else { 10_000 };
    let find = |kind: Kind, name: &str| kind.find(connection, name);
    let begin = |at| of_query(connection, query, Walk { from: at, direction }, find).unwrap();
    let mut walk = begin(at);
    let mut looks = budget;
    while let Some(candidate) = walk.seek(at, &mut looks).unwrap() {
        match candidate {
            Candidate::Match(position) => {
                found.push(position);
                at = if direction == Direction::Forward { position + 1 } else { position - 1 };
            }
            Candidate::Paused(position) => {
                assert_ne!(position, at, "a pause without progress would go on forever");
                (at, looks, pauses) = (position, budget, pauses + 1);
                walk = begin(at);
            }
        }
    }
    (found, pauses)
}

/// The same, by a look at every position.
fn expected(query: &Query, count: u64) -> Vec<u64> {
    let tags = |position: u64| {
        [("a:1", 2), ("b:1", 3)]
            .into_iter()
            .filter(move |(_, every)| position.is_multiple_of(*every))
    };
    let is_match = |position: &u64| {
        let kind = if is_x(*position) { "x" } else { "y" };
        query.matches(kind, tags(*position).map(|(tag, _)| tag))
    };
    (1..=count).filter(is_match).collect()
}

#[test]
fn queries_find_what_they_mean_in_both_directions_however_often_they_pause() {
    let connection = database(300);
    let queries = [
        Query::new([item(&[], &["a:1"])]),
        Query::new([item(&["x"], &[])]),
        Query::new([item(&["x", "y"], &["a:1", "b:1"])]),
        Query::new([item(&["y"], &["b:1"]), item(&["x"], &["a:1"]), item(&["x"], &["b:1"])]),
        Query::new([item(&[], &[])]),
        Query::new([item(&[], &["never:1"]), item(&["x", "never"], &["b:1", "b:1"])]),
        Query::new([item(&["never"], &[])]),
        Query::default(),
    ];
    for query in &queries {
        let mut positions = expected(query, 300);
        for budget in [0, 1, 7, 50, usize::MAX] {
            assert_eq!(walk(&connection, query, Direction::Forward, budget).0, positions);
        }
        positions.reverse();
        for budget in [0, 1, 7, 50, usize::MAX] {
            assert_eq!(walk(&connection, query, Direction::Backward, budget).0, positions);
        }
    }
}

#[test]
fn a_rare_tag_beside_a_common_one_costs_little() {
    let connection = database(300);
    connection.execute_batch("INSERT INTO tags VALUES (3, 'rare:1')").unwrap();
    connection.execute("INSERT INTO event_tags VALUES (3, 300)", []).unwrap();
    let query = Query::new([item(&[], &["a:1", "b:1", "rare:1"])]);
    let (found, pauses) = walk(&connection, &query, Direction::Forward, 30);
    assert_eq!((found, pauses), (vec![300], 0));
}

/// More than a list fetches at once, so that all of its fetches are tested.
#[test]
fn lists_longer_than_a_fetch_are_gone_through_to_their_ends() {
    let count = 4 * i64::from(FETCH_MAX) + 7;
    let connection = database(count);
    let queries = [
        Query::new([item(&[], &[])]),
        Query::new([item(&[], &["a:1"])]),
        Query::new([item(&["x"], &["b:1"]), item(&["y"], &["a:1"])]),
    ];
    for query in &queries {
        let mut positions = expected(query, count as u64);
        assert_eq!(walk(&connection, query, Direction::Forward, usize::MAX).0, positions);
        positions.reverse();
        assert_eq!(walk(&connection, query, Direction::Backward, usize::MAX).0, positions);
    }
}

/// The first item once spent the looks of all, so that each page of the others was one position.
#[test]
fn a_query_of_two_items_comes_further_than_a_position_in_a_page() {
    let connection = database(300);
    connection.execute_batch("INSERT INTO tags VALUES (3, 'odd:1')").unwrap();
    for position in (1..300).step_by(2) {
        let add = "INSERT INTO event_tags VALUES (3, ?1)";
        connection.execute(add, [position]).unwrap();
    }
    // No event has both tags of either item.
    let query = Query::new([item(&[], &["a:1", "odd:1"]), item(&[], &["odd:1", "a:1"])]);
    let (found, pauses) = walk(&connection, &query, Direction::Forward, 60);
    assert_eq!(found, [0_u64; 0]);
    assert!((5..=12).contains(&pauses), "{pauses} pages for 600 entries, of 60 each");
}
