-- What the log is, and the counters that outlive erased rows. One row.
CREATE TABLE log (
    log_no   INTEGER PRIMARY KEY CHECK (log_no = 1),
    lineage  BLOB    NOT NULL,            -- UUID
    last_at  INTEGER NOT NULL DEFAULT 0,  -- latest recorded_at of an erased event
    revision INTEGER NOT NULL DEFAULT 0   -- last revision given to a document
);

-- Texts that stand in many events are stored once.
CREATE TABLE categories (category_no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE types (type_no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE tags (tag_no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

-- A stream's version is the highest of its events', or erased_through when it has none: no row
-- is updated by an append. A deletion takes a version that no event has.
CREATE TABLE streams (
    stream_no      INTEGER PRIMARY KEY,
    name           TEXT    NOT NULL UNIQUE,
    category_no    INTEGER NOT NULL,
    erased_through INTEGER NOT NULL DEFAULT 0,  -- versions up to here are gone
    deleted_at     INTEGER NOT NULL DEFAULT 0,  -- version that the last deletion took
    keep_events    INTEGER,
    keep_age_us    INTEGER
);

CREATE TABLE events (
    position       INTEGER PRIMARY KEY,  -- 1, 2, 3, ...
    stream_no      INTEGER NOT NULL,
    version        INTEGER NOT NULL,     -- 1, 2, 3, ... in its stream
    type_no        INTEGER NOT NULL,
    category_no    INTEGER NOT NULL,
    recorded_at    INTEGER NOT NULL,     -- microseconds since 1970, UTC
    schema_version INTEGER NOT NULL,
    content        INTEGER NOT NULL,     -- 1 CBOR, 2 JSON, from 256 on the application's
    id             BLOB    NOT NULL,     -- UUID
    tags           BLOB    NOT NULL,     -- each a u16 little-endian length and UTF-8
    metadata       BLOB    NOT NULL,
    payload        BLOB    NOT NULL,
    checksum       INTEGER NOT NULL      -- CRC-32C over the rest, names as texts
);
CREATE UNIQUE INDEX events_by_stream ON events (stream_no, version);
CREATE INDEX events_by_category ON events (category_no);
CREATE INDEX events_by_type ON events (type_no);

CREATE TABLE event_tags (
    tag_no   INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (tag_no, position)
) WITHOUT ROWID;

-- Positions whose events are gone; neighbouring ranges are merged.
CREATE TABLE erased (first INTEGER PRIMARY KEY, last INTEGER NOT NULL);

CREATE TABLE documents (
    key      BLOB    PRIMARY KEY NOT NULL,
    revision INTEGER NOT NULL,
    value    BLOB    NOT NULL
) WITHOUT ROWID;
