/*
 * account_table.sql
 *		The tables whose rows each belong to one account.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- An account table is a table whose rows each belong to one account.  syncs is not an
-- account table, because a sync can be for several accounts.
CREATE FUNCTION postalytics.account_tables()
RETURNS regclass[]
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY['postalytics.events', 'postalytics.pieces', 'postalytics.campaigns', 'postalytics.rejects',
                 'postalytics.production_errors', 'postalytics.deliveries', 'postalytics.deliveries_unfinished']::regclass[]
$$;
COMMENT ON FUNCTION postalytics.account_tables() IS
    'internal: the account tables, which are the tables whose rows each belong to one account';

-- The functions are called in subqueries, so that they are evaluated once per query, not
-- for each row.
CREATE FUNCTION postalytics.reader_condition()
RETURNS text
LANGUAGE sql
IMMUTABLE
RETURN '(SELECT postalytics.reads_all())
        OR account OPERATOR(pg_catalog.=) ANY ((SELECT postalytics.readable_accounts())::text[])';
COMMENT ON FUNCTION postalytics.reader_condition() IS
    'internal: the condition of policy readers of account tables';
