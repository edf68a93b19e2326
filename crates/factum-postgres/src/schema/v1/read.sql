-- The functions that read. They are STABLE, so that all their statements see the one snapshot of
-- the statement that calls them: rows and numbers of a page belong together.

-- How a stream is.
CREATE FUNCTION @schema@.stream_info(
    p_stream text,
    OUT o_version bigint, OUT o_erased bigint, OUT o_deleted bigint,
    OUT o_keep_events bigint, OUT o_keep_age_us bigint, OUT o_first_at bigint,
    OUT o_last_at bigint
)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off AS $$
BEGIN
    SELECT s.erased_through, s.deleted_at, s.keep_events, s.keep_age_us
        INTO o_erased, o_deleted, o_keep_events, o_keep_age_us
        FROM @schema@.streams AS s WHERE s.stream = p_stream;
    o_erased := coalesce(o_erased, 0);
    o_deleted := coalesce(o_deleted, 0);
    SELECT e.version, e.recorded_at INTO o_version, o_last_at FROM @schema@.events AS e
        WHERE e.stream = p_stream ORDER BY e.version DESC LIMIT 1;
    SELECT e.recorded_at INTO o_first_at FROM @schema@.events AS e
        WHERE e.stream = p_stream ORDER BY e.version LIMIT 1;
    o_version := greatest(coalesce(o_version, 0), o_erased);
END $$;

-- The log's last position, lineage and version of the schema.
CREATE FUNCTION @schema@.log_end(
    OUT o_head bigint, OUT o_lineage uuid, OUT o_schema_version integer
)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off AS $$
BEGIN
    SELECT greatest(
            coalesce((SELECT e.position FROM @schema@.events AS e
                ORDER BY e.position DESC LIMIT 1), 0),
            coalesce((SELECT r.last FROM @schema@.erased AS r ORDER BY r.first DESC LIMIT 1), 0)),
        l.lineage, l.schema_version
        INTO STRICT o_head, o_lineage, o_schema_version
        FROM @schema@.log AS l WHERE l.log_no = 1;
END $$;

-- The first position at or behind one, in a direction, of an event of any of these types with all
-- of these tags; no types stand for all. Each list is asked for its next position at or behind
-- where the others are, until all agree: the work is bounded by the shortest. It also ends after
-- `p_steps` rounds; then `o_left` is 0, and nothing before `o_position` matches.
CREATE FUNCTION @schema@.next_match(
    p_types text[], p_tags text[], p_from bigint, p_forward boolean, p_steps integer,
    OUT o_position bigint, OUT o_left integer
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_start bigint;
    v_next bigint;
    v_tag text;
BEGIN
    o_position := p_from;
    o_left := p_steps;
    IF cardinality(p_types) = 0 AND cardinality(p_tags) = 0 THEN
        IF p_forward THEN
            SELECT e.position INTO o_position FROM @schema@.events AS e
                WHERE e.position >= p_from ORDER BY e.position LIMIT 1;
        ELSE
            SELECT e.position INTO o_position FROM @schema@.events AS e
                WHERE e.position <= p_from ORDER BY e.position DESC LIMIT 1;
        END IF;
        RETURN;
    END IF;
    LOOP
        v_start := o_position;
        FOREACH v_tag IN ARRAY p_tags LOOP
            IF p_forward THEN
                SELECT t.position INTO o_position FROM @schema@.event_tags AS t
                    WHERE t.tag = v_tag AND t.position >= o_position ORDER BY t.position LIMIT 1;
            ELSE
                SELECT t.position INTO o_position FROM @schema@.event_tags AS t
                    WHERE t.tag = v_tag AND t.position <= o_position
                    ORDER BY t.position DESC LIMIT 1;
            END IF;
            IF o_position IS NULL THEN RETURN; END IF;
        END LOOP;
        IF cardinality(p_types) > 0 THEN
            IF p_forward THEN
                SELECT min(n.position) INTO v_next FROM unnest(p_types) AS y (type)
                    CROSS JOIN LATERAL (SELECT e.position FROM @schema@.events AS e
                        WHERE e.type = y.type AND e.position >= o_position
                        ORDER BY e.type, e.position LIMIT 1) AS n;
            ELSE
                SELECT max(n.position) INTO v_next FROM unnest(p_types) AS y (type)
                    CROSS JOIN LATERAL (SELECT e.position FROM @schema@.events AS e
                        WHERE e.type = y.type AND e.position <= o_position
                        ORDER BY e.type DESC, e.position DESC LIMIT 1) AS n;
            END IF;
            o_position := v_next;
            IF o_position IS NULL THEN RETURN; END IF;
        END IF;
        IF o_position = v_start THEN RETURN; END IF;
        o_left := o_left - 1;
        -- The list that was asked first may hold it; a step less is no loss.
        IF o_left <= 0 THEN o_left := 0; RETURN; END IF;
    END LOOP;
END $$;

-- At most so many positions of one item of a query, from one on in a direction; and where the next
-- would be looked for, if the list was cut.
CREATE FUNCTION @schema@.item_positions(
    p_types text[], p_tags text[], p_from bigint, p_forward boolean, p_max integer,
    OUT o_positions bigint[], OUT o_next bigint
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_step bigint := CASE WHEN p_forward THEN 1 ELSE -1 END;
    v_at bigint := p_from;
    -- As many steps as a page may look at events.
    v_left integer := 50000;
BEGIN
    IF cardinality(p_tags) = 1 AND cardinality(p_types) = 0 AND p_forward THEN
        o_positions := ARRAY(SELECT t.position FROM @schema@.event_tags AS t
            WHERE t.tag = p_tags[1] AND t.position >= p_from ORDER BY t.position LIMIT p_max);
    ELSIF cardinality(p_tags) = 1 AND cardinality(p_types) = 0 THEN
        o_positions := ARRAY(SELECT t.position FROM @schema@.event_tags AS t
            WHERE t.tag = p_tags[1] AND t.position <= p_from ORDER BY t.position DESC LIMIT p_max);
    ELSIF cardinality(p_tags) = 0 AND cardinality(p_types) > 0 AND p_forward THEN
        o_positions := ARRAY(SELECT n.position FROM unnest(p_types) AS y (type)
            CROSS JOIN LATERAL (SELECT e.position FROM @schema@.events AS e
                WHERE e.type = y.type AND e.position >= p_from
                ORDER BY e.type, e.position LIMIT p_max) AS n
            ORDER BY n.position LIMIT p_max);
    ELSIF cardinality(p_tags) = 0 AND cardinality(p_types) > 0 THEN
        o_positions := ARRAY(SELECT n.position FROM unnest(p_types) AS y (type)
            CROSS JOIN LATERAL (SELECT e.position FROM @schema@.events AS e
                WHERE e.type = y.type AND e.position <= p_from
                ORDER BY e.type DESC, e.position DESC LIMIT p_max) AS n
            ORDER BY n.position DESC LIMIT p_max);
    ELSIF cardinality(p_tags) = 0 AND p_forward THEN
        o_positions := ARRAY(SELECT e.position FROM @schema@.events AS e
            WHERE e.position >= p_from ORDER BY e.position LIMIT p_max);
    ELSIF cardinality(p_tags) = 0 THEN
        o_positions := ARRAY(SELECT e.position FROM @schema@.events AS e
            WHERE e.position <= p_from ORDER BY e.position DESC LIMIT p_max);
    ELSE
        o_positions := '{}';
        WHILE cardinality(o_positions) < p_max LOOP
            SELECT n.o_position, n.o_left INTO v_at, v_left
                FROM @schema@.next_match(p_types, p_tags, v_at, p_forward, v_left) AS n;
            IF v_at IS NULL THEN RETURN; END IF;
            IF v_left = 0 THEN
                o_next := v_at;
                RETURN;
            END IF;
            o_positions := o_positions || v_at;
            v_at := v_at + v_step;
        END LOOP;
    END IF;
    IF cardinality(o_positions) = p_max THEN
        o_next := o_positions[p_max] + v_step;
    END IF;
END $$;

-- Where a read of the log begins: 0 start, 1 end, 2 a position, 4 a time.
CREATE FUNCTION @schema@.start_in_log(
    p_from integer, p_at bigint, p_forward boolean, p_head bigint
) RETURNS bigint
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_low bigint := 1;
    v_high bigint := p_head + 1;
    v_middle bigint;
    v_time bigint;
BEGIN
    CASE p_from
        WHEN 0 THEN RETURN CASE WHEN p_forward THEN 1 ELSE 0 END;
        WHEN 1 THEN RETURN CASE WHEN p_forward THEN p_head + 1 ELSE p_head END;
        WHEN 2 THEN RETURN CASE WHEN p_forward THEN greatest(p_at, 1) ELSE least(p_at, p_head) END;
        ELSE NULL;
    END CASE;
    WHILE v_low < v_high LOOP
        v_middle := v_low + (v_high - v_low) / 2;
        -- The positions of erased events count as the next that is there.
        SELECT e.recorded_at INTO v_time FROM @schema@.events AS e
            WHERE e.position >= v_middle ORDER BY e.position LIMIT 1;
        IF v_time IS NULL OR v_time > p_at OR (p_forward AND v_time = p_at) THEN
            v_high := v_middle;
        ELSE
            v_low := v_middle + 1;
        END IF;
    END LOOP;
    RETURN CASE WHEN p_forward THEN v_low ELSE v_low - 1 END;
END $$;

-- Where a read of a stream begins, as a version: as above, and 3 a version.
CREATE FUNCTION @schema@.start_in_stream(
    p_stream text, p_from integer, p_at bigint, p_forward boolean, p_version bigint,
    p_erased bigint
) RETURNS bigint
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_low bigint := p_erased + 1;
    v_high bigint := p_version + 1;
    v_middle bigint;
    v_there bigint;
BEGIN
    CASE p_from
        WHEN 0 THEN RETURN CASE WHEN p_forward THEN 1 ELSE 0 END;
        WHEN 1 THEN RETURN CASE WHEN p_forward THEN p_version + 1 ELSE p_version END;
        WHEN 3 THEN RETURN p_at;
        ELSE NULL;
    END CASE;
    WHILE v_low < v_high LOOP
        v_middle := v_low + (v_high - v_low) / 2;
        SELECT CASE p_from WHEN 2 THEN e.position ELSE e.recorded_at END INTO STRICT v_there
            FROM @schema@.events AS e WHERE e.stream = p_stream AND e.version = v_middle;
        IF v_there > p_at OR (p_forward AND v_there = p_at) THEN
            v_high := v_middle;
        ELSE
            v_low := v_middle + 1;
        END IF;
    END LOOP;
    RETURN CASE WHEN p_forward THEN v_low ELSE v_low - 1 END;
END $$;

-- The pages. The rows of one are of three kinds: 0, the first, with the numbers of the snapshot
-- (head; of a stream its version, what is erased, where it was deleted; the lineage); 1 an event; 2
-- a range of erased positions (first, last). There are at most `p_events` events, and none behind
-- the one with which their sizes pass `p_bytes`. Where a filter looked no further, `o_d` of the
-- first row is the position that it did not look at.
CREATE TYPE @schema@.page_row AS (
    kind integer, a bigint, b bigint, c bigint, d bigint, id uuid, content integer,
    stream text, type text, tags bytea, metadata bytea, payload bytea
);

CREATE FUNCTION @schema@.log_page(
    p_from integer, p_at bigint, p_forward boolean, p_events integer, p_bytes bigint
) RETURNS SETOF @schema@.page_row
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_end record;
    v_start bigint;
BEGIN
    SELECT * INTO STRICT v_end FROM @schema@.log_end();
    v_start := @schema@.start_in_log(p_from, p_at, p_forward, v_end.o_head);
    RETURN QUERY SELECT 0, v_end.o_head, v_start, NULL::bigint, NULL::bigint, v_end.o_lineage,
        NULL::integer, NULL::text, NULL::text, NULL::bytea, NULL::bytea, NULL::bytea;
    -- Between two events there is at most one range, so that so many are enough.
    IF p_forward THEN
        RETURN QUERY SELECT 1, w.position, w.version, w.recorded_at, w.schema_version, w.id,
            w.content, w.stream, w.type, w.tags, w.metadata, w.payload
            FROM (SELECT e.*, sum(e.size) OVER (ORDER BY e.position ROWS UNBOUNDED PRECEDING)
                    - e.size AS before
                FROM (SELECT e.*, octet_length(e.stream) + octet_length(e.type)
                        + octet_length(e.tags) + octet_length(e.metadata)
                        + octet_length(e.payload) AS size
                    FROM @schema@.events AS e WHERE e.position >= v_start
                    ORDER BY e.position LIMIT p_events) AS e) AS w
            WHERE w.before <= p_bytes;
        RETURN QUERY SELECT 2, r.first, r.last, NULL::bigint, NULL::bigint, NULL::uuid,
            NULL::integer, NULL::text, NULL::text, NULL::bytea, NULL::bytea, NULL::bytea
            FROM @schema@.erased AS r WHERE r.first >= coalesce((SELECT b.first
                FROM @schema@.erased AS b WHERE b.first <= v_start
                ORDER BY b.first DESC LIMIT 1), v_start)
            ORDER BY r.first LIMIT p_events + 2;
    ELSE
        RETURN QUERY SELECT 1, w.position, w.version, w.recorded_at, w.schema_version, w.id,
            w.content, w.stream, w.type, w.tags, w.metadata, w.payload
            FROM (SELECT e.*, sum(e.size) OVER (ORDER BY e.position DESC ROWS UNBOUNDED PRECEDING)
                    - e.size AS before
                FROM (SELECT e.*, octet_length(e.stream) + octet_length(e.type)
                        + octet_length(e.tags) + octet_length(e.metadata)
                        + octet_length(e.payload) AS size
                    FROM @schema@.events AS e WHERE e.position <= v_start
                    ORDER BY e.position DESC LIMIT p_events) AS e) AS w
            WHERE w.before <= p_bytes;
        RETURN QUERY SELECT 2, r.first, r.last, NULL::bigint, NULL::bigint, NULL::uuid,
            NULL::integer, NULL::text, NULL::text, NULL::bytea, NULL::bytea, NULL::bytea
            FROM @schema@.erased AS r WHERE r.first <= v_start
            ORDER BY r.first DESC LIMIT p_events + 2;
    END IF;
END $$;

CREATE FUNCTION @schema@.stream_page(
    p_stream text, p_from integer, p_at bigint, p_forward boolean, p_events integer,
    p_bytes bigint
) RETURNS SETOF @schema@.page_row
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_end record;
    v_info record;
    v_start bigint;
BEGIN
    SELECT * INTO STRICT v_end FROM @schema@.log_end();
    SELECT greatest(coalesce(e.version, 0), coalesce(s.erased_through, 0)) AS version,
            coalesce(s.erased_through, 0) AS erased, coalesce(s.deleted_at, 0) AS deleted
        INTO STRICT v_info
        FROM (VALUES (p_stream)) AS u (name)
        LEFT JOIN LATERAL (SELECT f.version FROM @schema@.events AS f
            WHERE f.stream = u.name ORDER BY f.version DESC LIMIT 1) AS e ON true
        LEFT JOIN @schema@.streams AS s ON s.stream = u.name;
    v_start := @schema@.start_in_stream(p_stream, p_from, p_at, p_forward, v_info.version,
        v_info.erased);
    RETURN QUERY SELECT 0, v_end.o_head, v_info.version, v_info.erased, v_info.deleted,
        v_end.o_lineage, NULL::integer, NULL::text, NULL::text, NULL::bytea, NULL::bytea,
        NULL::bytea;
    IF p_forward THEN
        RETURN QUERY SELECT 1, w.position, w.version, w.recorded_at, w.schema_version, w.id,
            w.content, w.stream, w.type, w.tags, w.metadata, w.payload
            FROM (SELECT e.*, sum(e.size) OVER (ORDER BY e.version ROWS UNBOUNDED PRECEDING)
                    - e.size AS before
                FROM (SELECT e.*, octet_length(e.stream) + octet_length(e.type)
                        + octet_length(e.tags) + octet_length(e.metadata)
                        + octet_length(e.payload) AS size
                    FROM @schema@.events AS e WHERE e.stream = p_stream AND e.version >= v_start
                    ORDER BY e.version LIMIT p_events) AS e) AS w
            WHERE w.before <= p_bytes;
    ELSE
        RETURN QUERY SELECT 1, w.position, w.version, w.recorded_at, w.schema_version, w.id,
            w.content, w.stream, w.type, w.tags, w.metadata, w.payload
            FROM (SELECT e.*, sum(e.size) OVER (ORDER BY e.version DESC ROWS UNBOUNDED PRECEDING)
                    - e.size AS before
                FROM (SELECT e.*, octet_length(e.stream) + octet_length(e.type)
                        + octet_length(e.tags) + octet_length(e.metadata)
                        + octet_length(e.payload) AS size
                    FROM @schema@.events AS e WHERE e.stream = p_stream AND e.version <= v_start
                    ORDER BY e.version DESC LIMIT p_events) AS e) AS w
            WHERE w.before <= p_bytes;
    END IF;
END $$;

CREATE FUNCTION @schema@.category_page(
    p_category text, p_from integer, p_at bigint, p_forward boolean, p_events integer,
    p_bytes bigint
) RETURNS SETOF @schema@.page_row
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_end record;
    v_start bigint;
BEGIN
    SELECT * INTO STRICT v_end FROM @schema@.log_end();
    v_start := @schema@.start_in_log(p_from, p_at, p_forward, v_end.o_head);
    RETURN QUERY SELECT 0, v_end.o_head, NULL::bigint, NULL::bigint, NULL::bigint,
        v_end.o_lineage, NULL::integer, NULL::text, NULL::text, NULL::bytea, NULL::bytea,
        NULL::bytea;
    IF p_forward THEN
        RETURN QUERY SELECT 1, w.position, w.version, w.recorded_at, w.schema_version, w.id,
            w.content, w.stream, w.type, w.tags, w.metadata, w.payload
            FROM (SELECT e.*, sum(e.size) OVER (ORDER BY e.position ROWS UNBOUNDED PRECEDING)
                    - e.size AS before
                FROM (SELECT e.*, octet_length(e.stream) + octet_length(e.type)
                        + octet_length(e.tags) + octet_length(e.metadata)
                        + octet_length(e.payload) AS size
                    FROM @schema@.events AS e WHERE split_part(e.stream, '-', 1) = p_category
                        AND e.position >= v_start
                    ORDER BY e.position LIMIT p_events) AS e) AS w
            WHERE w.before <= p_bytes;
    ELSE
        RETURN QUERY SELECT 1, w.position, w.version, w.recorded_at, w.schema_version, w.id,
            w.content, w.stream, w.type, w.tags, w.metadata, w.payload
            FROM (SELECT e.*, sum(e.size) OVER (ORDER BY e.position DESC ROWS UNBOUNDED PRECEDING)
                    - e.size AS before
                FROM (SELECT e.*, octet_length(e.stream) + octet_length(e.type)
                        + octet_length(e.tags) + octet_length(e.metadata)
                        + octet_length(e.payload) AS size
                    FROM @schema@.events AS e WHERE split_part(e.stream, '-', 1) = p_category
                        AND e.position <= v_start
                    ORDER BY e.position DESC LIMIT p_events) AS e) AS w
            WHERE w.before <= p_bytes;
    END IF;
END $$;

-- `p_i_types` and `p_i_tags` say how many of the types and tags belong to each item of the query.
CREATE FUNCTION @schema@.query_page(
    p_i_types integer[], p_i_tags integer[], p_types text[], p_tags text[],
    p_from integer, p_at bigint, p_forward boolean, p_events integer, p_bytes bigint
) RETURNS SETOF @schema@.page_row
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_end record;
    v_start bigint;
    v_type integer := 1;
    v_tag integer := 1;
    v_item record;
    v_all bigint[] := '{}';
    v_next bigint;
BEGIN
    SELECT * INTO STRICT v_end FROM @schema@.log_end();
    v_start := @schema@.start_in_log(p_from, p_at, p_forward, v_end.o_head);
    FOR i IN 1 .. cardinality(p_i_types) LOOP
        SELECT * INTO STRICT v_item FROM @schema@.item_positions(
            p_types[v_type : v_type + p_i_types[i] - 1], p_tags[v_tag : v_tag + p_i_tags[i] - 1],
            v_start, p_forward, p_events);
        v_type := v_type + p_i_types[i];
        v_tag := v_tag + p_i_tags[i];
        v_all := v_all || v_item.o_positions;
        -- Nothing is known behind where the first of the lists was cut.
        v_next := CASE WHEN p_forward THEN least(v_next, v_item.o_next)
            ELSE greatest(v_next, v_item.o_next) END;
    END LOOP;
    RETURN QUERY SELECT 0, v_end.o_head, NULL::bigint, NULL::bigint, v_next,
        v_end.o_lineage, NULL::integer, NULL::text, NULL::text, NULL::bytea, NULL::bytea,
        NULL::bytea;
    IF p_forward THEN
        v_all := ARRAY(SELECT DISTINCT p.position FROM unnest(v_all) AS p (position)
            WHERE v_next IS NULL OR p.position < v_next ORDER BY 1 LIMIT p_events);
        RETURN QUERY SELECT 1, w.position, w.version, w.recorded_at, w.schema_version, w.id,
            w.content, w.stream, w.type, w.tags, w.metadata, w.payload
            FROM (SELECT e.*, sum(e.size) OVER (ORDER BY e.position ROWS UNBOUNDED PRECEDING)
                    - e.size AS before
                FROM (SELECT e.*, octet_length(e.stream) + octet_length(e.type)
                        + octet_length(e.tags) + octet_length(e.metadata)
                        + octet_length(e.payload) AS size
                    FROM @schema@.events AS e WHERE e.position = ANY (v_all)
                    ORDER BY e.position LIMIT p_events) AS e) AS w
            WHERE w.before <= p_bytes;
    ELSE
        v_all := ARRAY(SELECT DISTINCT p.position FROM unnest(v_all) AS p (position)
            WHERE v_next IS NULL OR p.position > v_next ORDER BY 1 DESC LIMIT p_events);
        RETURN QUERY SELECT 1, w.position, w.version, w.recorded_at, w.schema_version, w.id,
            w.content, w.stream, w.type, w.tags, w.metadata, w.payload
            FROM (SELECT e.*, sum(e.size) OVER (ORDER BY e.position DESC ROWS UNBOUNDED PRECEDING)
                    - e.size AS before
                FROM (SELECT e.*, octet_length(e.stream) + octet_length(e.type)
                        + octet_length(e.tags) + octet_length(e.metadata)
                        + octet_length(e.payload) AS size
                    FROM @schema@.events AS e WHERE e.position = ANY (v_all)
                    ORDER BY e.position DESC LIMIT p_events) AS e) AS w
            WHERE w.before <= p_bytes;
    END IF;
END $$;

-- The events of streams that have one of these ids, recorded at or after a time. The n-th id is
-- looked for in the n-th stream since the n-th time.
CREATE FUNCTION @schema@.find_ids(p_streams text[], p_ids uuid[], p_since bigint[])
RETURNS TABLE (o_stream text, o_id uuid, o_position bigint, o_version bigint,
    o_recorded_at bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_wanted record;
    v_event record;
BEGIN
    FOR v_wanted IN SELECT w.stream, min(w.since) AS since, array_agg(w.id) AS ids
        FROM unnest(p_streams, p_ids, p_since) AS w (stream, id, since) GROUP BY w.stream
    LOOP
        FOR v_event IN SELECT e.id, e.position, e.version, e.recorded_at FROM @schema@.events AS e
            WHERE e.stream = v_wanted.stream ORDER BY e.version DESC
        LOOP
            EXIT WHEN v_event.recorded_at < v_wanted.since;
            IF v_event.id = ANY (v_wanted.ids) THEN
                o_stream := v_wanted.stream; o_id := v_event.id;
                o_position := v_event.position; o_version := v_event.version;
                o_recorded_at := v_event.recorded_at;
                RETURN NEXT;
            END IF;
        END LOOP;
    END LOOP;
END $$;

-- At most so many documents of a range in the order of keys, and none behind the one with which
-- their sizes pass `p_bytes`.
CREATE FUNCTION @schema@.scan_documents(
    p_from bytea, p_to bytea, p_forward boolean, p_max integer, p_bytes bigint
) RETURNS TABLE (o_key bytea, o_revision bigint, o_value bytea)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF p_forward THEN
        RETURN QUERY SELECT w.key, w.revision, w.value
            FROM (SELECT d.*, sum(d.size) OVER (ORDER BY d.key ROWS UNBOUNDED PRECEDING) - d.size
                    AS before
                FROM (SELECT d.*, octet_length(d.key) + octet_length(d.value) AS size
                    FROM @schema@.documents AS d
                    WHERE d.key >= p_from AND (p_to IS NULL OR d.key < p_to)
                    ORDER BY d.key LIMIT p_max) AS d) AS w
            WHERE w.before <= p_bytes;
    ELSE
        RETURN QUERY SELECT w.key, w.revision, w.value
            FROM (SELECT d.*, sum(d.size) OVER (ORDER BY d.key DESC ROWS UNBOUNDED PRECEDING)
                    - d.size AS before
                FROM (SELECT d.*, octet_length(d.key) + octet_length(d.value) AS size
                    FROM @schema@.documents AS d
                    WHERE d.key >= p_from AND (p_to IS NULL OR d.key < p_to)
                    ORDER BY d.key DESC LIMIT p_max) AS d) AS w
            WHERE w.before <= p_bytes;
    END IF;
END $$;

CREATE FUNCTION @schema@.get_document(
    p_key bytea, OUT o_revision bigint, OUT o_value bytea
)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET jit = off AS $$
BEGIN
    SELECT d.revision, d.value INTO o_revision, o_value FROM @schema@.documents AS d
        WHERE d.key = p_key;
END $$;
