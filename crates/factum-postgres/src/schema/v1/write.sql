-- The functions that write. Each is called as a statement of its own, so that it is a transaction.

-- What every writing transaction begins with: the one isolation under which the statements behind
-- a lock see what was committed before the lock was given, and a commit that waits for the disk.
CREATE FUNCTION @schema@.begin_write(p_lock_ms integer) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'FC001', MESSAGE =
            'the transaction is ' || current_setting('transaction_isolation') ||
            ', begin it as READ COMMITTED, or set the role''s default_transaction_isolation so';
    END IF;
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    -- Where this is called in a transaction of somebody else's, the function that calls it has a
    -- setting of its own of this, so that this one ends with it.
    PERFORM set_config('lock_timeout', p_lock_ms || 'ms', true);
END $$;

-- The lock that every change of the log is made under: 'FACT' as a number, and the schema's oid.
CREATE FUNCTION @schema@.lock_log(p_lock_ms integer) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM @schema@.begin_write(p_lock_ms);
    PERFORM pg_advisory_xact_lock(
        (1178682196::bigint << 32) | '@name@'::regnamespace::oid::bigint);
END $$;

-- Whether a stream has an event with one of these ids, recorded at or after a time.
CREATE FUNCTION @schema@.has_id(p_stream text, p_ids uuid[], p_since bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_event record;
BEGIN
    -- From the newest on: the retry window is short, the stream may be long.
    FOR v_event IN SELECT e.id, e.recorded_at FROM @schema@.events AS e
        WHERE e.stream = p_stream ORDER BY e.version DESC
    LOOP
        EXIT WHEN v_event.recorded_at < p_since;
        IF v_event.id = ANY (p_ids) THEN RETURN true; END IF;
    END LOOP;
    RETURN false;
END $$;

-- Stores a group: every member whose expectations and conditions hold. See append.rs for what the
-- parameters hold; numbers of streams, members and events count from 1.
--
-- Codes of members that are not stored: 1 a version (which touch, the version there is), 2 a
-- condition (which of the group, a position), 3 ids of it may be stored already, 4 what it
-- expected may have been erased.
CREATE FUNCTION @schema@.append(
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
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET plan_cache_mode = force_generic_plan SET lock_timeout = 0 AS $$
DECLARE
    v_row record;
    v_positions bigint[];
    v_versions bigint[];
    v_hit bigint;
    v_item integer := 1;
    v_type integer := 1;
    v_tag integer := 1;
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

    FOR v_condition IN 1 .. cardinality(p_c_member) LOOP
        v_hit := NULL;
        FOR i IN 1 .. p_c_items[v_condition] LOOP
            IF p_c_member[v_condition] <> ALL (o_members) AND p_c_after[v_condition] < o_head THEN
                SELECT least(v_hit, n.o_position) INTO v_hit FROM @schema@.next_match(
                    p_types[v_type : v_type + p_i_types[v_item] - 1],
                    p_tags[v_tag : v_tag + p_i_tags[v_item] - 1],
                    p_c_after[v_condition] + 1, true, 2147483647) AS n;
            END IF;
            v_type := v_type + p_i_types[v_item];
            v_tag := v_tag + p_i_tags[v_item];
            v_item := v_item + 1;
        END LOOP;
        IF v_hit IS NOT NULL THEN
            o_members := o_members || p_c_member[v_condition]; o_codes := o_codes || 2;
            o_at := o_at || v_condition; o_values := o_values || v_hit;
        END IF;
    END LOOP;

    IF p_hold_us > 0 THEN PERFORM pg_sleep(p_hold_us / 1e6); END IF;

    IF cardinality(o_members) = 0 THEN
        INSERT INTO @schema@.events (position, version, recorded_at, schema_version, id, content,
                stream, type, tags, metadata, payload)
            SELECT o_head + n.no, o_versions[n.number] + n.ahead, o_recorded_at, n.schema_version,
                n.id, n.content, p_streams[n.number], n.type, n.tags, n.metadata, n.payload
            FROM (SELECT generate_series(1, cardinality(p_e_id)) AS no, unnest(p_e_number) AS number,
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

-- The tags in their stored form: for each two bytes of length, the lower one first, and its text.
CREATE FUNCTION @schema@.tags_of(p_tags bytea) RETURNS SETOF text
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_at integer := 0;
    v_length integer;
BEGIN
    WHILE v_at < octet_length(p_tags) LOOP
        v_length := get_byte(p_tags, v_at) + 256 * get_byte(p_tags, v_at + 1);
        RETURN NEXT convert_from(substr(p_tags, v_at + 3, v_length), 'UTF8');
        v_at := v_at + 2 + v_length;
    END LOOP;
END $$;

-- Erases the events of a stream up to a version, with their tags, and notes what is gone.
CREATE FUNCTION @schema@.erase(p_stream text, p_through bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_last_at bigint;
    v_firsts bigint[];
    v_lasts bigint[];
    v_last bigint;
    v_behind bigint;
BEGIN
    DELETE FROM @schema@.event_tags AS t USING (
            SELECT e.position, @schema@.tags_of(e.tags) AS tag FROM @schema@.events AS e
            WHERE e.stream = p_stream AND e.version <= p_through) AS g
        WHERE t.tag = g.tag AND t.position = g.position;
    WITH gone AS (
        DELETE FROM @schema@.events AS e WHERE e.stream = p_stream AND e.version <= p_through
        RETURNING e.position, e.recorded_at
    ), runs AS (
        SELECT min(n.position) AS first, max(n.position) AS last FROM (
            SELECT g.position, g.position - row_number() OVER (ORDER BY g.position) AS run
            FROM gone AS g) AS n
        GROUP BY n.run
    )
    SELECT coalesce(array_agg(r.first ORDER BY r.first), '{}'), array_agg(r.last ORDER BY r.first),
        (SELECT max(g.recorded_at) FROM gone AS g)
        INTO v_firsts, v_lasts, v_last_at FROM runs AS r;
    FOR i IN 1 .. cardinality(v_firsts) LOOP
        v_last := v_lasts[i];
        DELETE FROM @schema@.erased AS r WHERE r.first = v_last + 1 RETURNING r.last INTO v_behind;
        v_last := coalesce(v_behind, v_last);
        UPDATE @schema@.erased AS r SET last = v_last
            WHERE r.last = v_firsts[i] - 1 AND r.first = (SELECT b.first FROM @schema@.erased AS b
                WHERE b.first < v_firsts[i] ORDER BY b.first DESC LIMIT 1);
        IF NOT FOUND THEN
            INSERT INTO @schema@.erased (first, last) VALUES (v_firsts[i], v_last);
        END IF;
    END LOOP;
    UPDATE @schema@.log SET last_at = v_last_at WHERE last_at < v_last_at;
END $$;

-- Erases what a stream's retention no longer keeps; the last event stays.
CREATE FUNCTION @schema@.retain(p_stream text, p_now bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_state @schema@.streams%ROWTYPE;
    v_version bigint;
    v_kept bigint;
    v_through bigint;
BEGIN
    SELECT s.* INTO v_state FROM @schema@.streams AS s WHERE s.stream = p_stream;
    SELECT e.version INTO v_version FROM @schema@.events AS e
        WHERE e.stream = p_stream ORDER BY e.version DESC LIMIT 1;
    IF v_version IS NULL THEN RETURN; END IF;
    v_through := v_version - coalesce(v_state.keep_events, v_version);
    IF v_state.keep_age_us IS NOT NULL THEN
        SELECT e.version INTO v_kept FROM @schema@.events AS e
            WHERE e.stream = p_stream AND e.version > v_state.erased_through
                AND e.recorded_at >= p_now - v_state.keep_age_us
            ORDER BY e.version LIMIT 1;
        v_through := greatest(v_through, coalesce(v_kept, v_version) - 1);
    END IF;
    v_through := least(v_through, v_version - 1);
    IF v_through > v_state.erased_through THEN
        PERFORM @schema@.erase(p_stream, v_through);
        UPDATE @schema@.streams SET erased_through = v_through WHERE stream = p_stream;
    END IF;
END $$;

-- Does a change to a stream: 1 retain, 2 truncate before a version, 3 delete. Answers with how
-- the stream is then, and with a code if nothing was done: 1 another version, 2 a truncation that
-- would leave nothing.
CREATE FUNCTION @schema@.change(
    p_lock_ms integer, p_now bigint, p_stream text, p_kind integer, p_number bigint,
    p_keep_events bigint, p_keep_age_us bigint,
    OUT o_code integer, OUT o_version bigint, OUT o_erased bigint, OUT o_deleted bigint,
    OUT o_keep_events bigint, OUT o_keep_age_us bigint, OUT o_first_at bigint,
    OUT o_last_at bigint
)
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off SET jit = off AS $$
DECLARE
    v_info record;
BEGIN
    PERFORM @schema@.lock_log(p_lock_ms);
    SELECT * INTO STRICT v_info FROM @schema@.stream_info(p_stream);
    o_code := CASE
        WHEN p_kind = 2 AND p_number > v_info.o_version THEN 2
        WHEN p_kind = 3 AND CASE p_number
            WHEN -1 THEN false
            WHEN -2 THEN v_info.o_version = v_info.o_deleted
            ELSE v_info.o_version <> p_number END THEN 1
        ELSE 0 END;
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
    ELSIF o_code = 0 AND p_kind = 3 AND v_info.o_version <> v_info.o_deleted THEN
        -- The deletion takes a version: whoever loaded before it must conflict.
        PERFORM @schema@.erase(p_stream, v_info.o_version);
        INSERT INTO @schema@.streams (stream, erased_through, deleted_at)
            VALUES (p_stream, v_info.o_version + 1, v_info.o_version + 1)
            ON CONFLICT (stream) DO UPDATE
            SET erased_through = excluded.erased_through, deleted_at = excluded.deleted_at;
    END IF;
    SELECT i.o_version, i.o_erased, i.o_deleted, i.o_keep_events, i.o_keep_age_us, i.o_first_at,
            i.o_last_at
        INTO STRICT o_version, o_erased, o_deleted, o_keep_events, o_keep_age_us, o_first_at,
            o_last_at
        FROM @schema@.stream_info(p_stream) AS i;
END $$;

-- Gives the log a new lineage, as whoever restores a backup must, and answers with the old one.
CREATE FUNCTION @schema@.renew_lineage(p_lock_ms integer, p_lineage uuid) RETURNS uuid
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_old uuid;
BEGIN
    PERFORM @schema@.lock_log(p_lock_ms);
    SELECT l.lineage INTO STRICT v_old FROM @schema@.log AS l WHERE l.log_no = 1;
    UPDATE @schema@.log SET lineage = p_lineage WHERE log_no = 1;
    RETURN v_old;
END $$;

-- Writes documents, all or none. Answers with their revision, or with the first entry, from 0,
-- that was not at the expected one: -1 any, 0 absent, else just this one. No value removes.
CREATE FUNCTION @schema@.write_documents(
    p_lock_ms integer, p_keys bytea[], p_expected bigint[], p_values bytea[],
    OUT o_revision bigint, OUT o_entry integer
)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET lock_timeout = 0 AS $$
BEGIN
    PERFORM @schema@.begin_write(p_lock_ms);
    -- One lock per sixty-fourth of all keys, in one order for all: writers of different keys
    -- rarely meet, and no write takes more than 64 places in the server's table of locks.
    PERFORM pg_advisory_xact_lock(((4604227::bigint << 6 | b.bucket) << 32)
            | '@name@'::regnamespace::oid::bigint)
        FROM (SELECT DISTINCT hashtext(encode(k.key, 'hex')) & 63 AS bucket
            FROM unnest(p_keys) AS k (key) ORDER BY 1) AS b;
    -- In the order of keys, as whoever clears a range takes them.
    PERFORM FROM @schema@.documents AS d WHERE d.key = ANY (p_keys) ORDER BY d.key FOR UPDATE;
    SELECT n.no - 1 INTO o_entry
        FROM unnest(p_keys, p_expected) WITH ORDINALITY AS n (key, expected, no)
        LEFT JOIN @schema@.documents AS d ON d.key = n.key
        WHERE n.expected >= 0 AND n.expected <> coalesce(d.revision, 0)
        ORDER BY n.no LIMIT 1;
    IF o_entry IS NOT NULL THEN RETURN; END IF;
    IF cardinality(p_keys) = 0 THEN
        SELECT CASE WHEN r.is_called THEN r.last_value ELSE 0 END INTO o_revision
            FROM @schema@.document_revisions AS r;
        RETURN;
    END IF;
    o_revision := nextval('@schema@.document_revisions');
    DELETE FROM @schema@.documents AS d USING unnest(p_keys, p_values) AS n (key, value)
        WHERE d.key = n.key AND n.value IS NULL;
    INSERT INTO @schema@.documents AS d (key, revision, value)
        SELECT n.key, o_revision, n.value FROM unnest(p_keys, p_values) AS n (key, value)
        WHERE n.value IS NOT NULL ORDER BY n.key
        ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, value = excluded.value;
END $$;

-- Removes at most so many documents of a range, and answers with how many.
CREATE FUNCTION @schema@.clear_documents(
    p_lock_ms integer, p_from bytea, p_to bytea, p_max integer
) RETURNS integer
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    v_count integer;
BEGIN
    PERFORM @schema@.begin_write(p_lock_ms);
    DELETE FROM @schema@.documents AS d WHERE d.key = ANY (ARRAY(
        SELECT k.key FROM @schema@.documents AS k
        WHERE k.key >= p_from AND (p_to IS NULL OR k.key < p_to)
        ORDER BY k.key LIMIT p_max FOR UPDATE));
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END $$;
