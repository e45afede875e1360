/*
 * configure.sql
 *		configure: changes a setting.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- Locks: if identity changes, SHARE on events until the transaction ends.  Errors:
-- 42704 if there is no such setting, 22023 for a value that is not allowed; for
-- audit_retention also 42501 unless the session user has the privileges of the owner;
-- for identity also 55000 if there are events, 25001 unless the transaction is READ
-- COMMITTED, and 55P03 if the lock is not available within 10 seconds.
CREATE FUNCTION postalytics.configure(name text, value text)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    differs boolean := postalytics.check_setting(name, value);
    previous text := postalytics.setting(name);
BEGIN
    PERFORM postalytics.check_not_distributed();
    IF name = 'audit_retention' AND NOT pg_has_role(session_user, current_user, 'USAGE') THEN
        RAISE EXCEPTION 'permission denied to change setting "audit_retention"'
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Only the owner of the extension can change it.';
    END IF;
    IF name = 'identity' AND COALESCE(value, 'mail') <> previous THEN
        PERFORM postalytics.check_read_committed('configure');
        PERFORM postalytics.lock_briefly('postalytics.events', 'SHARE');
        IF EXISTS (SELECT FROM postalytics.events)
           OR EXISTS (SELECT FROM postalytics.pieces) THEN
            RAISE EXCEPTION 'cannot change setting "identity" because events exist'
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      DETAIL = 'Stored pieces are identified according to its current value.';
        END IF;
    END IF;
    IF differs THEN
        INSERT INTO postalytics.configuration AS c (name, value)
        VALUES (configure.name, configure.value)
        ON CONFLICT ON CONSTRAINT configuration_pkey DO UPDATE
        SET value = excluded.value;
    ELSE
        DELETE FROM postalytics.configuration AS c
        WHERE c.name = configure.name;
    END IF;
    PERFORM postalytics.audit('configure', name, NULL, format('from %s to %s', previous, COALESCE(value, 'the default')));
END
$$;
COMMENT ON FUNCTION postalytics.configure(text, text) IS
    'change a setting of this database for all sessions when the transaction commits; NULL resets it';
