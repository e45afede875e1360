/*
 * grant.sql
 *		Privileges on what only the front has.
 *
 * This file comes after rights/grant.sql, and extends its list of privileges.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

ALTER FUNCTION postalytics.sql_privileges(text) RENAME TO common_sql_privileges;

CREATE FUNCTION postalytics.sql_privileges(kind text)
RETURNS SETOF text
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT *
    FROM postalytics.common_sql_privileges(kind)
    UNION ALL
    SELECT p.privilege
    FROM (VALUES
        ('read', 'EXECUTE ON FUNCTION
                      postalytics.percentile_of_steps(double precision, integer[], bigint[]),
                      postalytics.read_responses_by_day(text),
                      postalytics.read_funnel(text, timestamptz, text),
                      postalytics.read_stuck_pieces(interval, text, interval, text)'),
        ('manage', 'SELECT ON postalytics.slots, postalytics.cluster_health'),
        ('manage', 'EXECUTE ON FUNCTION postalytics.slot_states()'),
        ('monitor', 'SELECT ON postalytics.slots, postalytics.cluster_health'),
        ('monitor', 'EXECUTE ON FUNCTION postalytics.slot_states()')) AS p (kind, privilege)
    WHERE p.kind = sql_privileges.kind
$$;
COMMENT ON FUNCTION postalytics.sql_privileges(text) IS
    'internal: the SQL privileges that a kind of binding, PUBLIC or pg_monitor includes';
-- This function did not exist when rights/grant.sql revoked default privileges.
SELECT postalytics.revoke_all_privileges('FUNCTION ' || p.oid::regprocedure, p.proacl, p.proowner)
FROM pg_proc AS p
WHERE p.oid = 'postalytics.sql_privileges(text)'::regprocedure;
