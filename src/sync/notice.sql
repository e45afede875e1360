/*
 * notice.sql
 *		Notifications of syncs.
 */

CREATE FUNCTION postalytics.wake(sync text, count bigint)
RETURNS void
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_wake';
COMMENT ON FUNCTION postalytics.wake(text, bigint) IS
    'internal: notify the channel of a sync of a number of events';
