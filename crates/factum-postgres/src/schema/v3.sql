-- Version 3: the conditions of a group are judged together, in time that grows with their names.

-- Of each member of a group that is not refused already, the first of its conditions that an event
-- meets, and that event's position. Numbers of members, conditions and items count from 1.
-- `p_items` says how many items belong to each condition, `p_i_types` and `p_i_tags` how many types
-- and tags to each item.
--
-- One look at each different name tells the last event that has it. That leaves the items whose
-- names have events after the condition's position, mostly none, and these alone are searched for.
-- A slice of an array of texts costs as much as all that is before it, so none is taken here.
CREATE FUNCTION @schema@.hits(
    p_head bigint, p_refused integer[],
    p_members integer[], p_after bigint[], p_items integer[],
    p_i_types integer[], p_i_tags integer[], p_types text[], p_tags text[]
) RETURNS TABLE (o_member integer, o_condition integer, o_position bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
-- The planner takes every array for a short one, and would join two long ones in a loop.
SET enable_nestloop = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_after bigint[];
    v_earliest bigint;
    v_conditions integer[];
    v_tag_items integer[];
    v_types text[];
    v_lasts bigint[];
    v_type_items integer[];
    v_left integer[];
    v_row record;
BEGIN
    -- The position after which each condition looks. Those of refused members look at nothing.
    v_after := ARRAY(SELECT CASE WHEN r.member IS NULL THEN least(c.after, p_head) ELSE p_head END
        FROM unnest(p_members, p_after) WITH ORDINALITY AS c (member, after, no)
        LEFT JOIN (SELECT DISTINCT u.member FROM unnest(p_refused) AS u (member)) AS r
            ON r.member = c.member
        ORDER BY c.no);
    v_earliest := (SELECT min(a.position) FROM unnest(v_after) AS a (position));
    IF v_earliest IS NULL OR v_earliest >= p_head THEN RETURN; END IF;
    -- The items of conditions that look at something: `unnest` gives elements in their order.
    v_conditions := ARRAY(SELECT c.no::integer FROM unnest(p_items) WITH ORDINALITY
        AS c (count, no), generate_series(1, c.count));
    v_left := ARRAY(SELECT i.no::integer
        FROM unnest(v_conditions) WITH ORDINALITY AS i (condition, no)
        WHERE v_after[i.condition] < p_head ORDER BY i.no);

    -- Of these, the items whose every tag has an event after the condition's position. OFFSET 0
    -- keeps the looks at names from being repeated for each item.
    IF cardinality(p_tags) > 0 THEN
        v_tag_items := ARRAY(SELECT i.no::integer FROM unnest(p_i_tags) WITH ORDINALITY
            AS i (count, no), generate_series(1, i.count));
        v_left := ARRAY(SELECT l.no FROM unnest(v_left) AS l (no)
            LEFT JOIN (SELECT n.item, min(d.last) AS last, count(*) AS count
                FROM unnest(p_tags, v_tag_items) AS n (tag, item)
                JOIN (SELECT k.tag, (SELECT t.position FROM @schema@.event_tags AS t
                        WHERE t.tag = k.tag ORDER BY t.position DESC LIMIT 1) AS last
                    FROM (SELECT DISTINCT u.tag FROM unnest(p_tags) AS u (tag)) AS k
                    OFFSET 0) AS d ON d.tag = n.tag AND d.last > v_earliest
                GROUP BY n.item) AS t ON t.item = l.no
            WHERE p_i_tags[l.no] = 0
                OR t.count = p_i_tags[l.no] AND t.last > v_after[v_conditions[l.no]]
            ORDER BY l.no);
    END IF;
    -- Of these, the items of which some type has one.
    IF cardinality(v_left) > 0 AND cardinality(p_types) > 0 THEN
        SELECT array_agg(d.type), array_agg(d.last) INTO v_types, v_lasts
            FROM (SELECT k.type, (SELECT e.position FROM @schema@.events AS e
                    WHERE e.type = k.type ORDER BY e.type DESC, e.position DESC LIMIT 1) AS last
                FROM (SELECT DISTINCT u.type FROM unnest(p_types) AS u (type)) AS k
                OFFSET 0) AS d
            WHERE d.last > v_earliest;
        IF v_types IS NULL THEN
            v_left := ARRAY(SELECT l.no FROM unnest(v_left) AS l (no)
                WHERE p_i_types[l.no] = 0 ORDER BY l.no);
        ELSE
            v_type_items := ARRAY(SELECT i.no::integer FROM unnest(p_i_types) WITH ORDINALITY
                AS i (count, no), generate_series(1, i.count));
            v_left := ARRAY(SELECT l.no FROM unnest(v_left) AS l (no)
                LEFT JOIN (SELECT n.item, max(d.last) AS last
                    FROM unnest(p_types, v_type_items) AS n (type, item)
                    JOIN unnest(v_types, v_lasts) AS d (type, last) ON d.type = n.type
                    GROUP BY n.item) AS y ON y.item = l.no
                WHERE p_i_types[l.no] = 0 OR y.last > v_after[v_conditions[l.no]]
                ORDER BY l.no);
        END IF;
    END IF;

    -- What is left is searched for, item by item.
    IF cardinality(v_left) = 0 THEN RETURN; END IF;
    FOR v_row IN SELECT l.condition, coalesce(y.types, '{}') AS types,
            coalesce(t.tags, '{}') AS tags
        FROM (SELECT u.no, v_conditions[u.no] AS condition FROM unnest(v_left) AS u (no)) AS l
        LEFT JOIN (SELECT n.item, array_agg(n.type) AS types
            FROM unnest(p_types, v_type_items) AS n (type, item)
            JOIN unnest(v_left) AS u (no) ON u.no = n.item GROUP BY n.item) AS y ON y.item = l.no
        LEFT JOIN (SELECT n.item, array_agg(n.tag) AS tags
            FROM unnest(p_tags, v_tag_items) AS n (tag, item)
            JOIN unnest(v_left) AS u (no) ON u.no = n.item GROUP BY n.item) AS t ON t.item = l.no
        ORDER BY l.no
    LOOP
        -- Conditions of a member stand side by side.
        CONTINUE WHEN p_members[v_row.condition] = o_member;
        SELECT n.o_position INTO o_position FROM @schema@.next_match(v_row.types, v_row.tags,
            v_after[v_row.condition] + 1, true, 2147483647) AS n;
        IF o_position IS NOT NULL THEN
            o_member := p_members[v_row.condition];
            o_condition := v_row.condition;
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;

-- Stores a group: every member whose expectations and conditions hold. See append.rs for what the
-- parameters hold; numbers of streams, members and events count from 1.
--
-- Codes of members that are not stored: 1 a version (which touch, the version there is), 2 a
-- condition (which of the group, a position), 3 ids of it may be stored already, 4 what it
-- expected may have been erased.
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

DO $$
DECLARE
    v_role text;
BEGIN
    -- Who may append may do what that needs.
    REVOKE ALL ON FUNCTION @schema@.hits FROM PUBLIC;
    FOR v_role IN SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
        FROM pg_proc AS p, aclexplode(p.proacl) AS a
        WHERE p.oid = '@schema@.append'::regproc AND a.grantee <> p.proowner
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION @schema@.hits TO %s', v_role);
    END LOOP;
END $$;
