use rusqlite::Connection;

use super::*;

/// SQLite's query plan of a statement.
fn plan(connection: &Connection, sql: &str) -> String {
    let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    // Unbound parameters are NULL, which does not change the plan.
    let mut rows = explain.raw_query();
    let mut steps = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        steps.push(row.get::<_, String>(3).unwrap());
    }
    steps.join("; ")
}

fn database() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(include_str!("../schema/v1.sql")).unwrap();
    connection
}

#[test]
fn no_statement_goes_through_a_whole_table_or_sorts() {
    let connection = database();
    // Each of these stops at its first row, or reads a table of the header or of the categories
    // once per connection.
    let walks_in_order = [
        "COUNT_TABLES",
        "SNAPSHOT",
        "LAST_TWICE",
        "ALL_FORWARD",
        "ALL_BACKWARD",
        "LOG_FORWARD",
        "LOG_BACKWARD",
    ];
    for (name, sql) in ALL {
        let plan = plan(&connection, sql);
        assert!(!plan.contains("TEMP B-TREE"), "{name} sorts: {plan}");
        let is_known = walks_in_order.contains(name);
        assert!(is_known || !plan.contains("SCAN"), "{name} goes through a table: {plan}");
    }
}

#[test]
fn positions_and_versions_are_found_by_the_index_that_is_meant() {
    let connection = database();
    let check = |name: &str, expected: &str| {
        let (_, sql) = ALL.iter().find(|(other, _)| *other == name).unwrap();
        let plan = plan(&connection, sql);
        assert!(plan.contains(expected), "{name}: {plan}");
    };
    check("LOG_FORWARD", "SEARCH e USING INTEGER PRIMARY KEY (rowid>?)");
    check("STREAM_FORWARD", "SEARCH e USING INDEX events_by_stream (stream_no=? AND version>?)");
    check("STREAM_BACKWARD", "SEARCH e USING INDEX events_by_stream (stream_no=? AND version<?)");
    check("STREAM_AT", "USING INDEX events_by_stream (stream_no=? AND version=?)");
    check("CATEGORY_FORWARD", "USING COVERING INDEX events_by_category (category_no=? AND rowid>?");
    check("TYPE_BACKWARD", "USING COVERING INDEX events_by_type (type_no=? AND rowid<?");
    check("TAG_FORWARD", "USING PRIMARY KEY (tag_no=? AND position>?)");
    check("LAST_TWICE", "USING COVERING INDEX events_by_category (category_no=?)");
    check("FIND_STREAM", "USING COVERING INDEX events_by_stream (stream_no=?)");
    check("ERASE_EVENTS", "events_by_stream (stream_no=? AND version<?)");
}
