/*
 * audit.sql
 *		audit_log: calls that changed settings or privileges, or removed or moved data.
 *
 * Names, ids and addresses of recipients, and ids of their mail pieces, are not
 * recorded.  maintain() deletes rows older than the setting audit_retention.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TABLE postalytics.audit_log (
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    login name NOT NULL DEFAULT SESSION_USER,
    role name,
    action text NOT NULL,
    object text,
    account text,
    detail text
);
-- A publication FOR ALL TABLES includes this table.  As there is no primary key, UPDATE
-- and DELETE would then fail without another replica identity.
ALTER TABLE postalytics.audit_log REPLICA IDENTITY FULL;
CREATE INDEX audit_log_at_idx ON postalytics.audit_log (at);
COMMENT ON TABLE postalytics.audit_log IS
    'calls that changed settings or privileges, or removed or moved data; kept for the time that the setting audit_retention specifies';
COMMENT ON COLUMN postalytics.audit_log.at IS 'time of the action';
COMMENT ON COLUMN postalytics.audit_log.login IS 'the role that logged in';
COMMENT ON COLUMN postalytics.audit_log.role IS 'the role assumed with SET ROLE, or NULL';
COMMENT ON COLUMN postalytics.audit_log.action IS 'the function that was called';
COMMENT ON COLUMN postalytics.audit_log.object IS 'the setting, role, campaign or sync that the action was about, or NULL';
COMMENT ON COLUMN postalytics.audit_log.account IS 'the account that the action was about, or NULL';
COMMENT ON COLUMN postalytics.audit_log.detail IS 'what changed, without data about recipients; or NULL';

SELECT pg_catalog.pg_extension_config_dump('postalytics.audit_log', '');

-- Errors: 42501 in a security-restricted operation, in which code of other roles runs, such
-- as the triggers of linked contacts.
CREATE FUNCTION postalytics.check_unrestricted()
RETURNS void
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_check_unrestricted';
COMMENT ON FUNCTION postalytics.check_unrestricted() IS
    'internal: raise an error if the session runs code of another role, whose calls would be recorded as the session''s';

-- Functions that call this one run as the owner, so CURRENT_USER would not identify the
-- user who called them.  The role that logged in and the role assumed with SET ROLE are
-- recorded instead.  object, account and detail may be NULL.
CREATE FUNCTION postalytics.audit(action text, object text, account text, detail text)
RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    SELECT postalytics.check_unrestricted();
    INSERT INTO postalytics.audit_log (role, action, object, account, detail)
    VALUES (NULLIF(pg_catalog.current_setting('role'), 'none'), action, object, account, detail);
END;
COMMENT ON FUNCTION postalytics.audit(text, text, text, text) IS
    'internal: record an action in audit_log';
