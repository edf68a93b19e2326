-- Version 1 of the tables and functions of a log. `@schema@` stands for the quoted name of the
-- schema, `@name@` for the bare one. Logs that exist were made by these statements: never change
-- them, add a version. docs/design/0011-postgresql.md tells why it is so.

CREATE TABLE @schema@.log (
    log_no smallint PRIMARY KEY DEFAULT 1 CHECK (log_no = 1),
    schema_version integer NOT NULL,
    lineage uuid NOT NULL,
    -- When the last event was recorded that is erased; times must not go back behind it.
    last_at bigint NOT NULL DEFAULT 0
);

CREATE TABLE @schema@.events (
    position bigint PRIMARY KEY,
    version bigint NOT NULL,
    recorded_at bigint NOT NULL,
    schema_version bigint NOT NULL,
    id uuid NOT NULL,
    content integer NOT NULL,
    stream text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    tags bytea NOT NULL,
    metadata bytea NOT NULL,
    payload bytea NOT NULL
);
CREATE UNIQUE INDEX events_by_stream ON @schema@.events (stream, version);
CREATE INDEX events_by_category ON @schema@.events (split_part(stream, '-', 1), position);
CREATE INDEX events_by_type ON @schema@.events (type, position);

CREATE TABLE @schema@.event_tags (
    tag text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (tag, position)
);

-- Ranges of positions whose events are gone; no two touch.
CREATE TABLE @schema@.erased (
    first bigint PRIMARY KEY,
    last bigint NOT NULL
);

-- Streams of which something is erased or to be erased. Others have no row.
CREATE TABLE @schema@.streams (
    stream text COLLATE "C" PRIMARY KEY,
    erased_through bigint NOT NULL DEFAULT 0,
    deleted_at bigint NOT NULL DEFAULT 0,
    keep_events bigint,
    keep_age_us bigint
);

CREATE TABLE @schema@.documents (
    key bytea PRIMARY KEY,
    revision bigint NOT NULL,
    value bytea NOT NULL
);
CREATE SEQUENCE @schema@.document_revisions;
