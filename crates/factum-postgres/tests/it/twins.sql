-- A twin of each function, operator and type of the server's own that a statement might name, in
-- `public`: none that is called comes back. Two crates' tests use it.

DO $do$
DECLARE
    v record;
BEGIN
    FOR v IN SELECT p.proname, p.proretset, p.prorettype::regtype AS result,
            (SELECT coalesce(string_agg(t.type::regtype::text, ', ' ORDER BY t.no), '')
                FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS t (type, no)) AS arguments
        FROM pg_proc AS p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind <> 'p'
            AND p.prorettype NOT IN ('internal'::regtype, 'trigger'::regtype)
    LOOP
        -- Some take or give what a function in this language can't.
        BEGIN
            EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS %L',
                v.proname, v.arguments, CASE WHEN v.proretset THEN 'SETOF' ELSE '' END, v.result,
                'BEGIN RAISE EXCEPTION ''a twin was called''; END');
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
    FOR v IN SELECT o.oprname, p.proname,
            CASE o.oprleft WHEN 0 THEN '' ELSE format('LEFTARG = %s, ', o.oprleft::regtype) END
            || format('RIGHTARG = %s', o.oprright::regtype) AS arguments
        FROM pg_operator AS o JOIN pg_proc AS p ON p.oid = o.oprcode
        WHERE o.oprnamespace = 'pg_catalog'::regnamespace
    LOOP
        BEGIN
            EXECUTE format('CREATE OPERATOR public.%s (%s, FUNCTION = public.%I)',
                v.oprname, v.arguments, v.proname);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
END $do$;
CREATE TABLE public.pg_namespace (); CREATE TABLE public.pg_class ();
CREATE DOMAIN public.regclass AS point; CREATE DOMAIN public.regnamespace AS point;
CREATE DOMAIN public.oid AS point; CREATE DOMAIN public.uuid AS point;
CREATE DOMAIN public.bytea AS point; CREATE DOMAIN public.text AS point;
