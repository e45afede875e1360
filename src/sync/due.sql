/*
 * due.sql
 *		due_clock and due_at: when deliveries are due.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.due_clock()
RETURNS timestamptz
LANGUAGE c
VOLATILE
AS 'MODULE_PATHNAME', 'postalytics_due_clock';
COMMENT ON FUNCTION postalytics.due_clock() IS
    'current time, for due_at of deliveries that this transaction changes';

CREATE FUNCTION postalytics.due_at(occurred_at timestamptz, wait interval, clock timestamptz)
RETURNS timestamptz
LANGUAGE c
IMMUTABLE STRICT
AS 'MODULE_PATHNAME', 'postalytics_due_at';
COMMENT ON FUNCTION postalytics.due_at(timestamptz, interval, timestamptz) IS
    'internal: when the delivery of an event is due: wait after occurred_at, with days and months counted in UTC, but not before clock';
