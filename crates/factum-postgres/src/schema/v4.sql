-- Version 4: a deletion is an event of a group. Of a deletion before this version there is only the
-- row in `streams`; its `deleted_at` is a version without an event.

-- As in version 1, but a deletion is refused: it would take a version without an event, and programs
-- of this version would not forget the stream.
CREATE OR REPLACE FUNCTION @schema@.change(
    p_lock_ms integer, p_now bigint, p_stream text, p_kind integer, p_number bigint,
    p_keep_events bigint, p_keep_age_us bigint,
    OUT o_code integer, OUT o_version bigint, OUT o_erased bigint, OUT o_deleted bigint,
    OUT o_keep_events bigint, OUT o_keep_age_us bigint, OUT o_first_at bigint,
    OUT o_last_at bigint
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_info record;
BEGIN
    IF p_kind = 3 THEN
        RAISE EXCEPTION USING ERRCODE = 'FC001', MESSAGE =
            'a program of an earlier version can''t delete streams of this log any more, start '
            || 'this version';
    END IF;
    PERFORM @schema@.lock_log(p_lock_ms);
    SELECT * INTO STRICT v_info FROM @schema@.stream_info(p_stream);
    o_code := CASE WHEN p_kind = 2 AND p_number > v_info.o_version THEN 2 ELSE 0 END;
    IF o_code = 0 AND p_kind = 1 THEN
        INSERT INTO @schema@.streams (stream, keep_events, keep_age_us)
            VALUES (p_stream, p_keep_events, p_keep_age_us)
            ON CONFLICT (stream) DO UPDATE
            SET keep_events = excluded.keep_events, keep_age_us = excluded.keep_age_us;
        PERFORM @schema@.retain(p_stream, p_now);
    ELSIF o_code = 0 AND p_kind = 2 AND p_number - 1 > v_info.o_erased THEN
        PERFORM @schema@.erase(p_stream, p_number - 1);
        INSERT INTO @schema@.streams (stream, erased_through) VALUES (p_stream, p_number - 1)
            ON CONFLICT (stream) DO UPDATE SET erased_through = excluded.erased_through;
    END IF;
    SELECT i.o_version, i.o_erased, i.o_deleted, i.o_keep_events, i.o_keep_age_us, i.o_first_at,
            i.o_last_at
        INTO STRICT o_version, o_erased, o_deleted, o_keep_events, o_keep_age_us, o_first_at,
            o_last_at
        FROM @schema@.stream_info(p_stream) AS i;
END $$;

-- Stores a group: every member whose expectations and conditions hold. See append.rs for what the
-- parameters hold; numbers of streams, members and events count from 1.
--
-- Codes of members that are not stored: 1 a version (which touch, the version there is), 2 a
-- condition (which of the group, a position), 3 ids of it may be stored already, 4 what it
-- expected may have been erased.
--
-- A group holds at most one member that deletes, and no other of its members writes to the streams
-- that this one deletes.
CREATE OR REPLACE FUNCTION @schema@.append(
    p_lock_ms integer, p_hold_us bigint, p_now bigint, p_known bigint,
    p_streams text[], p_repeated boolean[], p_since bigint[],
    p_t_member integer[], p_t_stream integer[], p_t_expected bigint[],
    p_c_member integer[], p_c_after bigint[], p_c_items integer[],
    p_i_types integer[], p_i_tags integer[], p_types text[], p_tags text[],
    p_e_member integer[], p_e_number integer[], p_e_ahead integer[],
    p_e_type text[], p_e_schema bigint[], p_e_content integer[],
    p_e_id uuid[], p_e_tags bytea[], p_e_metadata bytea[], p_e_payload bytea[],
    p_g_event integer[], p_g_tag text[],
    OUT o_head bigint, OUT o_recorded_at bigint,
    OUT o_versions bigint[], OUT o_erased bigint[], OUT o_deleted bigint[],
    OUT o_members integer[], OUT o_codes integer[], OUT o_at integer[], OUT o_values bigint[]
)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan SET lock_timeout = 0 AS $$
DECLARE
    v_row record;
    v_positions bigint[];
    v_versions bigint[];
    v_limited boolean;
BEGIN
    PERFORM @schema@.lock_log(p_lock_ms);
    -- From here on each statement sees what was committed before the lock was given.
    o_members := '{}'; o_codes := '{}'; o_at := '{}'; o_values := '{}';
    SELECT greatest(
            coalesce((SELECT e.position FROM @schema@.events AS e
                ORDER BY e.position DESC LIMIT 1), 0),
            coalesce((SELECT r.last FROM @schema@.erased AS r ORDER BY r.first DESC LIMIT 1), 0)),
        greatest(p_now, l.last_at,
            coalesce((SELECT e.recorded_at FROM @schema@.events AS e
                ORDER BY e.position DESC LIMIT 1), 0))
        INTO STRICT o_head, o_recorded_at FROM @schema@.log AS l WHERE l.log_no = 1;

    -- `unnest` gives elements in their order.
    o_versions := ARRAY(SELECT coalesce((SELECT e.version FROM @schema@.events AS e
            WHERE e.stream = u.name ORDER BY e.version DESC LIMIT 1), 0)
        FROM unnest(p_streams) AS u (name));
    IF EXISTS (SELECT FROM @schema@.streams) THEN
        SELECT array_agg(greatest(u.version, s.erased_through) ORDER BY u.no),
            array_agg(coalesce(s.erased_through, 0) ORDER BY u.no),
            array_agg(coalesce(s.deleted_at, 0) ORDER BY u.no),
            bool_or(s.keep_events IS NOT NULL OR s.keep_age_us IS NOT NULL)
            INTO o_versions, o_erased, o_deleted, v_limited
            FROM unnest(p_streams, o_versions) WITH ORDINALITY AS u (name, version, no)
            LEFT JOIN @schema@.streams AS s ON s.stream = u.name;
    END IF;

    -- What was stored since the caller knew the head may be these very batches: a retry can
    -- overtake the first attempt.
    IF o_head > p_known THEN
        FOR v_row IN SELECT DISTINCT n.member
            FROM (SELECT e.id FROM @schema@.events AS e WHERE e.position > p_known
                ORDER BY e.position) AS e
            JOIN unnest(p_e_id, p_e_member) AS n (id, member) ON n.id = e.id
            WHERE p_repeated[n.member] IS NOT TRUE
        LOOP
            o_members := o_members || v_row.member; o_codes := o_codes || 3;
            o_at := o_at || 0; o_values := o_values || 0::bigint;
        END LOOP;
    END IF;
    IF true = ANY (p_repeated) THEN
        FOR v_row IN SELECT n.member, bool_or(@schema@.has_id(n.stream, n.ids, p_since[n.member]))
                AS found
            FROM (SELECT i.member, p_streams[i.number] AS stream, array_agg(i.id) AS ids
                FROM unnest(p_e_member, p_e_number, p_e_id) AS i (member, number, id)
                WHERE p_repeated[i.member] GROUP BY 1, 2) AS n
            GROUP BY 1 ORDER BY 1
        LOOP
            IF v_row.found THEN
                o_members := o_members || v_row.member; o_codes := o_codes || 3;
                o_at := o_at || 0; o_values := o_values || 0::bigint;
            ELSIF EXISTS (SELECT FROM unnest(p_t_member, p_t_stream, p_t_expected)
                AS t (member, stream, expected)
                WHERE t.member = v_row.member AND t.expected >= 0
                AND o_erased[t.stream] > t.expected)
            THEN
                o_members := o_members || v_row.member; o_codes := o_codes || 4;
                o_at := o_at || 0; o_values := o_values || 0::bigint;
            END IF;
        END LOOP;
    END IF;

    -- Expected versions: -2 a stream with events, else just this one.
    FOR v_row IN SELECT DISTINCT ON (t.member) t.member, t.no, o_versions[t.stream] AS version
        FROM unnest(p_t_member, p_t_stream, p_t_expected) WITH ORDINALITY
            AS t (member, stream, expected, no)
        WHERE CASE t.expected
            WHEN -2 THEN o_versions[t.stream] = coalesce(o_deleted[t.stream], 0)
            ELSE o_versions[t.stream] <> t.expected END
        ORDER BY t.member, t.no
    LOOP
        CONTINUE WHEN v_row.member = ANY (o_members);
        o_members := o_members || v_row.member; o_codes := o_codes || 1;
        o_at := o_at || v_row.no::integer; o_values := o_values || v_row.version;
    END LOOP;

    IF cardinality(p_c_member) > 0 THEN
        FOR v_row IN SELECT h.o_member AS member, h.o_condition AS no, h.o_position AS position
            FROM @schema@.hits(o_head, o_members, p_c_member, p_c_after, p_c_items, p_i_types,
                p_i_tags, p_types, p_tags) AS h
        LOOP
            o_members := o_members || v_row.member; o_codes := o_codes || 2;
            o_at := o_at || v_row.no; o_values := o_values || v_row.position;
        END LOOP;
    END IF;

    IF p_hold_us > 0 THEN PERFORM pg_sleep(p_hold_us / 1e6); END IF;

    IF cardinality(o_members) = 0 THEN
        INSERT INTO @schema@.events (position, version, recorded_at, schema_version, id, content,
                stream, type, tags, metadata, payload)
            SELECT o_head + n.no, o_versions[n.number] + n.ahead, o_recorded_at, n.schema_version,
                n.id, n.content, p_streams[n.number], n.type, n.tags, n.metadata, n.payload
            FROM (SELECT generate_series(1, cardinality(p_e_id)) AS no,
                unnest(p_e_number) AS number,
                unnest(p_e_ahead) AS ahead, unnest(p_e_schema) AS schema_version,
                unnest(p_e_id) AS id, unnest(p_e_content) AS content, unnest(p_e_type) AS type,
                unnest(p_e_tags) AS tags, unnest(p_e_metadata) AS metadata,
                unnest(p_e_payload) AS payload) AS n;
        IF cardinality(p_g_tag) > 0 THEN
            INSERT INTO @schema@.event_tags (tag, position)
                SELECT g.tag, o_head + g.event FROM unnest(p_g_tag, p_g_event) AS g (tag, event);
        END IF;
    ELSE
        -- The places of what is left, in its order; 0 for what is not stored.
        SELECT array_agg(coalesce(p.place, 0) ORDER BY n.no),
            array_agg(coalesce(p.ahead, 0) ORDER BY n.no) INTO v_positions, v_versions
            FROM unnest(p_e_member) WITH ORDINALITY AS n (member, no)
            LEFT JOIN (SELECT k.no, row_number() OVER (ORDER BY k.no) AS place,
                    row_number() OVER (PARTITION BY k.number ORDER BY k.no) AS ahead
                FROM unnest(p_e_member, p_e_number) WITH ORDINALITY AS k (member, number, no)
                WHERE NOT EXISTS (SELECT FROM unnest(o_members) AS b (member)
                    WHERE b.member = k.member)) AS p ON p.no = n.no;
        INSERT INTO @schema@.events (position, version, recorded_at, schema_version, id, content,
                stream, type, tags, metadata, payload)
            SELECT o_head + n.place, o_versions[n.number] + n.ahead, o_recorded_at,
                n.schema_version, n.id, n.content, p_streams[n.number], n.type, n.tags,
                n.metadata, n.payload
            FROM unnest(v_positions, v_versions, p_e_number, p_e_schema, p_e_id, p_e_content,
                p_e_type, p_e_tags, p_e_metadata, p_e_payload) AS n (place, ahead, number,
                schema_version, id, content, type, tags, metadata, payload)
            WHERE n.place > 0;
        IF cardinality(p_g_tag) > 0 THEN
            INSERT INTO @schema@.event_tags (tag, position)
                SELECT g.tag, o_head + v_positions[g.event]
                FROM unnest(p_g_tag, p_g_event) AS g (tag, event)
                WHERE v_positions[g.event] > 0;
        END IF;
    END IF;

    -- The event of a deletion erases everything before it in its stream.
    IF '$stream.deleted' = ANY (p_e_type) THEN
        FOR v_row IN SELECT e.stream, e.version FROM @schema@.events AS e
            WHERE e.position > o_head AND e.type = '$stream.deleted'
        LOOP
            PERFORM @schema@.erase(v_row.stream, v_row.version - 1);
            INSERT INTO @schema@.streams (stream, erased_through, deleted_at)
                VALUES (v_row.stream, v_row.version - 1, v_row.version)
                ON CONFLICT (stream) DO UPDATE
                SET erased_through = excluded.erased_through, deleted_at = excluded.deleted_at;
        END LOOP;
    END IF;

    IF v_limited THEN
        FOR v_row IN SELECT DISTINCT s.stream FROM unnest(p_e_number, p_e_member)
                AS u (number, member)
            JOIN @schema@.streams AS s ON s.stream = p_streams[u.number]
            WHERE u.member <> ALL (o_members)
        LOOP
            PERFORM @schema@.retain(v_row.stream, p_now);
        END LOOP;
    END IF;
END $$;
