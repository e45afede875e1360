/*
 * lock.sql
 *		Locks that do not block other sessions for long, and the check of the
 *		isolation level that these locks require.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- After waiting for a lock, a command must read what other transactions committed
-- meanwhile.  This is possible only in a READ COMMITTED transaction.  Errors: 25001 at
-- another isolation level.
CREATE FUNCTION postalytics.check_read_committed(command text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION '% must run in a READ COMMITTED transaction', command
            USING ERRCODE = 'active_sql_transaction',
                  HINT = 'Use BEGIN ISOLATION LEVEL READ COMMITTED.';
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.check_read_committed(text) IS
    'internal: raise an error unless the transaction is READ COMMITTED';

-- Locks a table, without its partitions, until the transaction ends.  A waiting
-- lock request blocks the requests queued behind it, so each attempt waits for
-- only 0.1 seconds, and other sessions can proceed between attempts.  Errors:
-- 55P03 after 10 seconds.
CREATE FUNCTION postalytics.lock_briefly(relation regclass, mode text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '100ms'
AS $$
DECLARE
    deadline timestamptz := clock_timestamp() + '10 s'::interval;
BEGIN
    LOOP
        BEGIN
            EXECUTE format('LOCK TABLE ONLY %s IN %s MODE', relation, mode);
            RETURN;
        EXCEPTION
            WHEN lock_not_available THEN
                IF clock_timestamp() >= deadline THEN
                    RAISE EXCEPTION 'could not lock table "%" within 10 seconds', relation
                        USING ERRCODE = 'lock_not_available',
                              DETAIL = 'Other transactions hold conflicting locks on the table.',
                              HINT = 'Try again after these transactions have ended. They are listed in pg_locks and pg_stat_activity.';
                END IF;
        END;
        PERFORM pg_sleep(0.4);
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.lock_briefly(regclass, text) IS
    'internal: lock a table without blocking its writers for more than 0.1 seconds at a time';
