/*
 * facts.sql
 *		Facts about a piece, derived from its row for the reports.
 *
 * The bodies of these functions are strings for the reason given at reached_at
 * (piece.sql).
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.was_sent(piece postalytics.pieces)
RETURNS boolean
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
SELECT COALESCE(piece.mailed_at, piece.first_opened_at, piece.first_completed_at) IS NOT NULL OR postalytics.was_scanned(piece)
$$;
COMMENT ON FUNCTION postalytics.was_sent(postalytics.pieces) IS
    'true if a piece was mailed, even if Mailed was not reported: it has a Mailed event, a scan or a response';

CREATE FUNCTION postalytics.was_scanned(piece postalytics.pieces)
RETURNS boolean
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
SELECT COALESCE(piece.in_transit_at, piece.in_local_area_at, piece.processed_for_delivery_at,
                piece.re_routed_at, piece.returned_to_sender_at) IS NOT NULL
$$;
COMMENT ON FUNCTION postalytics.was_scanned(postalytics.pieces) IS
    'true if the postal service has reported an event of a piece';

CREATE FUNCTION postalytics.is_tracked(piece postalytics.pieces)
RETURNS boolean
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
SELECT postalytics.was_scanned(piece)
    OR postalytics.was_sent(piece) AND postalytics.applies_in('InTransit', piece.country) IS NOT FALSE
$$;
COMMENT ON FUNCTION postalytics.is_tracked(postalytics.pieces) IS
    'true if a piece was scanned, or was sent and its country is not Canada';

CREATE FUNCTION postalytics.expected_day(expected_delivery_at timestamptz)
RETURNS date
LANGUAGE sql
STABLE PARALLEL SAFE
AS $$
SELECT CASE
           WHEN (expected_delivery_at AT TIME ZONE 'UTC')::time OPERATOR(pg_catalog.=) '00:00'
           THEN (expected_delivery_at AT TIME ZONE 'UTC')::date
           ELSE (expected_delivery_at AT TIME ZONE postalytics.setting('feed_time_zone'))::date
       END
$$;
COMMENT ON FUNCTION postalytics.expected_day(timestamptz) IS
    'internal: day of an expected delivery date, which the feed sends as midnight';

CREATE FUNCTION postalytics.late_after(piece postalytics.pieces)
RETURNS timestamptz
LANGUAGE sql
STABLE PARALLEL SAFE
AS $$
SELECT (postalytics.expected_day(piece.expected_delivery_at) OPERATOR(pg_catalog.+) 1)::timestamp
       AT TIME ZONE COALESCE(postalytics.zip_time_zone(piece.zip), 'America/New_York')
$$;
COMMENT ON FUNCTION postalytics.late_after(postalytics.pieces) IS
    'end of the expected delivery day in the recipient''s time zone; NULL if no delivery date is known';

-- Returns the earliest time of a later status, even if the piece never was at this one.
-- For ReRouted, this is the time of the current status, if that is another.  NULL for
-- ProcessedForDelivery, ReturnedToSender and responses.
CREATE FUNCTION postalytics.left_at(piece postalytics.pieces, status postalytics.mail_status)
RETURNS timestamptz
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
SELECT CASE
           WHEN status OPERATOR(pg_catalog.=) 'MailPieceCreated' THEN
               LEAST(piece.addressed_at, piece.printed_at, piece.mailed_at, piece.in_transit_at, piece.in_local_area_at,
                     piece.processed_for_delivery_at, piece.re_routed_at, piece.returned_to_sender_at)
           WHEN status OPERATOR(pg_catalog.=) 'Addressed' THEN
               LEAST(piece.printed_at, piece.mailed_at, piece.in_transit_at, piece.in_local_area_at,
                     piece.processed_for_delivery_at, piece.re_routed_at, piece.returned_to_sender_at)
           WHEN status OPERATOR(pg_catalog.=) 'Printed' THEN
               LEAST(piece.mailed_at, piece.in_transit_at, piece.in_local_area_at,
                     piece.processed_for_delivery_at, piece.re_routed_at, piece.returned_to_sender_at)
           WHEN status OPERATOR(pg_catalog.=) 'Mailed' THEN
               LEAST(piece.in_transit_at, piece.in_local_area_at,
                     piece.processed_for_delivery_at, piece.re_routed_at, piece.returned_to_sender_at)
           WHEN status OPERATOR(pg_catalog.=) 'InTransit' THEN
               LEAST(piece.in_local_area_at, piece.processed_for_delivery_at, piece.re_routed_at, piece.returned_to_sender_at)
           WHEN status OPERATOR(pg_catalog.=) 'InLocalArea' THEN
               LEAST(piece.processed_for_delivery_at, piece.re_routed_at, piece.returned_to_sender_at)
           WHEN status OPERATOR(pg_catalog.=) 'ReRouted' THEN
               CASE WHEN piece.status OPERATOR(pg_catalog.<>) 'ReRouted' THEN piece.status_at END
       END
$$;
COMMENT ON FUNCTION postalytics.left_at(postalytics.pieces, postalytics.mail_status) IS
    'internal: when a piece first had a status later than this one; NULL if it has none';
