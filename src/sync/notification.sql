/*
 * notification.sql
 *		Notifications of syncs.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.notify_sync(sync text, count bigint)
RETURNS void
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_notify_sync';
COMMENT ON FUNCTION postalytics.notify_sync(text, bigint) IS
    'internal: send a notification about a number of events to the channel of a sync';
