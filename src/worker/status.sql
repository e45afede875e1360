/*
 * status.sql
 *		The state of the background worker, if the library is preloaded.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.worker_status(
    OUT running boolean,
    OUT pid integer,
    OUT started_at timestamptz,
    OUT last_notify_at timestamptz,
    OUT notifications bigint,
    OUT last_maintenance_at timestamptz,
    OUT last_error text,
    OUT last_error_at timestamptz)
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_worker_status';
COMMENT ON FUNCTION postalytics.worker_status() IS
    'state of this database''s background worker: whether and since when it runs, and its last activities';

CREATE FUNCTION postalytics.want_worker()
RETURNS void
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_want_worker';
COMMENT ON FUNCTION postalytics.want_worker() IS
    'internal: make the launcher check this database';

SELECT postalytics.want_worker();
