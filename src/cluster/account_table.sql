/*
 * account_table.sql
 *		The tables of the front whose rows each belong to one account.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.account_tables()
RETURNS regclass[]
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY['postalytics.events', 'postalytics.pieces', 'postalytics.rejects', 'postalytics.production_errors',
                 'postalytics.deliveries', 'postalytics.deliveries_unfinished', 'postalytics.dead_letters',
                 'postalytics.delivery_errors', 'postalytics.returned_mail']::regclass[]
$$;
COMMENT ON FUNCTION postalytics.account_tables() IS
    'internal: the account tables, which are the tables whose rows each belong to one account';

-- See may_see (binding.sql).
CREATE FUNCTION postalytics.reader_condition()
RETURNS text
LANGUAGE sql
IMMUTABLE
RETURN 'postalytics.may_see(account, (SELECT postalytics.reads_all()), (SELECT postalytics.readable_accounts()))';
COMMENT ON FUNCTION postalytics.reader_condition() IS
    'internal: the condition of policy readers of account tables';
