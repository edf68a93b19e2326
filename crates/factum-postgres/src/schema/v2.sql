-- Version 2: a function means the same in every session, and only named roles may call it.

-- As in version 1, and what a session hides of warnings is told as well: that a commit did not wait
-- for its standby is said by nothing else.
CREATE OR REPLACE FUNCTION @schema@.begin_write(p_lock_ms integer) RETURNS void
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
    IF current_setting('client_min_messages') = 'error' THEN
        PERFORM set_config('client_min_messages', 'warning', true);
    END IF;
    -- Where this is called in a transaction of the user's, the function that calls it has a setting
    -- of its own of this, so that this one ends with it.
    PERFORM set_config('lock_timeout', p_lock_ms || 'ms', true);
END $$;

DO $$
DECLARE
    v_function text;
    v_role text;
BEGIN
    FOREACH v_function IN ARRAY '{append, begin_write, category_page, change, clear_documents,
        erase, find_ids, get_document, has_id, item_positions, lock_log, log_end, log_page,
        next_match, query_page, renew_lineage, retain, scan_documents, start_in_log,
        start_in_stream, stream_info, stream_page, tags_of, write_documents}'::text[]
    LOOP
        v_function := '@schema@.' || v_function;
        -- Names without a schema, those of operators among them, mean the server's own. A session's
        -- path could put another schema first; a better match in a later schema would win as well.
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', v_function);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_function);
        -- Roles that have worked with the log by the right of PUBLIC go on working. The functions
        -- run with the rights of their caller, so this gives nobody more than the tables' grants.
        FOR v_role IN
            SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
                FROM pg_class AS c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) AS a
                WHERE c.relnamespace = '@name@'::regnamespace
            UNION SELECT 'pg_read_all_data'
        LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', v_function, v_role);
        END LOOP;
    END LOOP;

    -- Version 1 was made under the path of its maker's session, so these two may call functions or
    -- operators of another schema. Built-in ones are no dependencies, so each one found is such.
    IF EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass
        AND d.objid = to_regclass('@schema@.events_by_category')
        AND d.refclassid = 'pg_proc'::regclass)
    THEN
        DROP INDEX @schema@.events_by_category;
        CREATE INDEX events_by_category
            ON @schema@.events (split_part(stream, '-', 1), position);
    END IF;
    IF EXISTS (SELECT FROM pg_depend AS d JOIN pg_constraint AS c ON c.oid = d.objid
        WHERE d.classid = 'pg_constraint'::regclass AND c.conrelid = '@schema@.log'::regclass
        AND c.contype = 'c' AND d.refclassid = 'pg_operator'::regclass)
    THEN
        ALTER TABLE @schema@.log DROP CONSTRAINT log_log_no_check;
        ALTER TABLE @schema@.log ADD CHECK (log_no = 1);
    END IF;
END $$;
