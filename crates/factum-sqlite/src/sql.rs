//! All statements, in one place, so that a test can check the query plan of each. Values are bound,
//! never pasted.

/// Defines the constants, and their list for the test.
macro_rules! statements {
    ($($(#[$meta:meta])* $name:ident = $text:expr;)*) => {
        $($(#[$meta])* pub(crate) const $name: &str = $text;)*
        #[cfg(test)]
        const ALL: &[(&str, &str)] = &[$((stringify!($name), $text)),*];
    };
}

/// A statement that reads whole events. `CROSS JOIN` makes SQLite use the tables in the written
/// order: from the event to its names.
macro_rules! events {
    ($which:literal) => {
        concat!(
            "SELECT e.position, e.version, e.recorded_at, e.id, e.schema_version, e.content, ",
            "s.name, t.name, e.tags, e.metadata, e.payload, e.checksum FROM events AS e ",
            "CROSS JOIN streams AS s ON s.stream_no = e.stream_no ",
            "CROSS JOIN types AS t ON t.type_no = e.type_no ",
            $which
        )
    };
}

statements! {
    COUNT_TABLES = "SELECT count(*) FROM sqlite_schema";
    CREATE_LOG = "INSERT INTO log (log_no, lineage) VALUES (1, ?1)";

    BEGIN_WRITE = "BEGIN IMMEDIATE";
    BEGIN_READ = "BEGIN DEFERRED";
    COMMIT = "COMMIT";
    ROLLBACK = "ROLLBACK";
    DATA_VERSION = "PRAGMA data_version";
    TRUNCATE_WAL = "PRAGMA wal_checkpoint(TRUNCATE)";

    /// The numbers of a snapshot: the lineage, the last existing and the last erased position, the
    /// last times.
    SNAPSHOT = "SELECT lineage, last_at, \
        (SELECT max(position) FROM events), \
        (SELECT last FROM erased ORDER BY first DESC LIMIT 1), \
        (SELECT recorded_at FROM events ORDER BY position DESC LIMIT 1) \
        FROM log WHERE log_no = 1";

    /// The last position, and the last position in the index of categories.
    LAST_TWICE = "SELECT (SELECT max(position) FROM events), \
        (SELECT max((SELECT position FROM events INDEXED BY events_by_category \
        WHERE category_no = c.category_no ORDER BY position DESC LIMIT 1)) \
        FROM categories AS c)";

    FIND_CATEGORY = "SELECT category_no FROM categories WHERE name = ?1";
    FIND_TYPE = "SELECT type_no FROM types WHERE name = ?1";
    FIND_TAG = "SELECT tag_no FROM tags WHERE name = ?1";
    ADD_CATEGORY = "INSERT INTO categories (name) VALUES (?1)";
    ADD_TYPE = "INSERT INTO types (name) VALUES (?1)";
    ADD_TAG = "INSERT INTO tags (name) VALUES (?1)";

    FIND_STREAM = "SELECT stream_no, category_no, erased_through, deleted_at, keep_events, \
        keep_age_us, \
        (SELECT max(version) FROM events AS e WHERE e.stream_no = s.stream_no) \
        FROM streams AS s WHERE name = ?1";
    ADD_STREAM = "INSERT INTO streams (name, category_no) VALUES (?1, ?2)";
    SET_RETENTION = "UPDATE streams SET keep_events = ?2, keep_age_us = ?3 WHERE stream_no = ?1";
    SET_ERASED = "UPDATE streams SET erased_through = ?2, deleted_at = ?3 WHERE stream_no = ?1";

    ADD_EVENT = "INSERT INTO events (position, stream_no, version, type_no, category_no, \
        recorded_at, schema_version, content, id, tags, metadata, payload, checksum) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    /// If an event has the same tag twice, it counts once.
    ADD_EVENT_TAG = "INSERT OR IGNORE INTO event_tags (tag_no, position) VALUES (?1, ?2)";
    FIND_IDS = "SELECT id, position, version, recorded_at FROM events \
        WHERE stream_no = ?1 AND version <= ?2 ORDER BY version DESC";
    EVENT_BETWEEN = "SELECT 1 FROM events WHERE position >= ?1 AND position <= ?2 LIMIT 1";

    LOG_FORWARD = events!("WHERE e.position >= ?1 ORDER BY e.position");
    LOG_BACKWARD = events!("WHERE e.position <= ?1 ORDER BY e.position DESC");
    STREAM_FORWARD = events!("WHERE e.stream_no = ?1 AND e.version >= ?2 ORDER BY e.version");
    STREAM_BACKWARD =
        events!("WHERE e.stream_no = ?1 AND e.version <= ?2 ORDER BY e.version DESC");
    EVENT_AT = events!("WHERE e.position = ?1");

    ALL_FORWARD = "SELECT position FROM events \
        WHERE ?1 = 0 AND position >= ?2 ORDER BY position LIMIT ?3";
    ALL_BACKWARD = "SELECT position FROM events \
        WHERE ?1 = 0 AND position <= ?2 ORDER BY position DESC LIMIT ?3";
    CATEGORY_FORWARD = "SELECT position FROM events INDEXED BY events_by_category \
        WHERE category_no = ?1 AND position >= ?2 ORDER BY position LIMIT ?3";
    CATEGORY_BACKWARD = "SELECT position FROM events INDEXED BY events_by_category \
        WHERE category_no = ?1 AND position <= ?2 ORDER BY position DESC LIMIT ?3";
    TYPE_FORWARD = "SELECT position FROM events INDEXED BY events_by_type \
        WHERE type_no = ?1 AND position >= ?2 ORDER BY position LIMIT ?3";
    TYPE_BACKWARD = "SELECT position FROM events INDEXED BY events_by_type \
        WHERE type_no = ?1 AND position <= ?2 ORDER BY position DESC LIMIT ?3";
    TAG_FORWARD = "SELECT position FROM event_tags \
        WHERE tag_no = ?1 AND position >= ?2 ORDER BY position LIMIT ?3";
    TAG_BACKWARD = "SELECT position FROM event_tags \
        WHERE tag_no = ?1 AND position <= ?2 ORDER BY position DESC LIMIT ?3";

    /// The time of the first event at or after a position.
    TIME_FROM = "SELECT recorded_at FROM events WHERE position >= ?1 ORDER BY position LIMIT 1";
    STREAM_AT = "SELECT position, recorded_at FROM events WHERE stream_no = ?1 AND version = ?2";

    TO_ERASE = "SELECT position, recorded_at, tags FROM events \
        WHERE stream_no = ?1 AND version <= ?2 ORDER BY version";
    ERASE_EVENTS = "DELETE FROM events WHERE stream_no = ?1 AND version <= ?2";
    ERASE_EVENT_TAG = "DELETE FROM event_tags WHERE tag_no = ?1 AND position = ?2";
    ERASE_TAG = "DELETE FROM tags WHERE tag_no = ?1 \
        AND NOT EXISTS (SELECT 1 FROM event_tags WHERE tag_no = ?1)";
    KEEP_TIME = "UPDATE log SET last_at = max(last_at, ?1) WHERE log_no = 1";
    ERASED_BEFORE = "SELECT first, last FROM erased WHERE first < ?1 ORDER BY first DESC LIMIT 1";
    ERASED_FROM = "SELECT first, last FROM erased WHERE first >= ?1 AND first <= ?2 ORDER BY first";
    ERASED_AT = "SELECT last FROM erased WHERE first = ?1";
    ADD_ERASED = "INSERT INTO erased (first, last) VALUES (?1, ?2)";
    SET_ERASED_LAST = "UPDATE erased SET last = ?2 WHERE first = ?1";
    REMOVE_ERASED = "DELETE FROM erased WHERE first = ?1";

    GET_DOCUMENT = "SELECT key, revision, value FROM documents WHERE key = ?1";
    DOCUMENT_REVISION = "SELECT revision FROM documents WHERE key = ?1";
    REVISION = "SELECT revision FROM log WHERE log_no = 1";
    NEXT_REVISION = "UPDATE log SET revision = revision + 1 WHERE log_no = 1 RETURNING revision";
    PUT_DOCUMENT = "INSERT INTO documents (key, revision, value) VALUES (?1, ?2, ?3) \
        ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, value = excluded.value";
    REMOVE_DOCUMENT = "DELETE FROM documents WHERE key = ?1";
    SCAN_FORWARD = "SELECT key, revision, value FROM documents WHERE key >= ?1 ORDER BY key";
    SCAN_BACKWARD = "SELECT key, revision, value FROM documents \
        WHERE key < ?1 ORDER BY key DESC";
    SCAN_FROM_END = "SELECT key, revision, value FROM documents \
        WHERE key >= ?1 ORDER BY key DESC";
    /// The end of a bounded step through a range of keys: the key after its last.
    CLEAR_STEP = "SELECT key FROM documents WHERE key >= ?1 ORDER BY key LIMIT 1 OFFSET ?2";
    CLEAR = "DELETE FROM documents WHERE key >= ?1 AND key < ?2";
    CLEAR_TO_END = "DELETE FROM documents WHERE key >= ?1";
}

#[cfg(test)]
mod tests;
