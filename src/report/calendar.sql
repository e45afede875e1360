/*
 * calendar.sql
 *		The days on which USPS delivers mail, and when a piece is delivered.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.federal_holidays(year integer)
RETURNS TABLE (day date, observed date, name text)
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
ROWS 11
AS 'MODULE_PATHNAME', 'postalytics_federal_holidays';
COMMENT ON FUNCTION postalytics.federal_holidays(integer) IS
    'US federal holidays of a year, and the days on which they are observed';

CREATE FUNCTION postalytics.is_delivery_day(day date)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_is_delivery_day';
COMMENT ON FUNCTION postalytics.is_delivery_day(date) IS
    'true if USPS delivers mail on that day: Monday to Saturday, except federal holidays and the Monday after a holiday on a Sunday';

-- The function is immutable, as AT TIME ZONE is, although it depends on the time zone
-- data of the server.
CREATE FUNCTION postalytics.delivery_window(processed_at timestamptz, time_zone text DEFAULT 'America/New_York')
RETURNS tstzrange
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_delivery_window';
COMMENT ON FUNCTION postalytics.delivery_window(timestamptz, text) IS
    'when a piece processed for delivery is delivered: the next two delivery days, in that time zone';

CREATE FUNCTION postalytics.zip_time_zone(zip text)
RETURNS text
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_zip_time_zone';
COMMENT ON FUNCTION postalytics.zip_time_zone(text) IS
    'time zone of a US ZIP code, by its first three digits; NULL for anything else';

-- The body is a string for the reason given at reached_at (piece.sql).
CREATE FUNCTION postalytics.estimated_delivery(piece postalytics.pieces)
RETURNS tstzrange
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
SELECT CASE
           WHEN piece.status OPERATOR(pg_catalog.=) 'ProcessedForDelivery'
           THEN postalytics.delivery_window(piece.status_at,
                                            COALESCE(postalytics.zip_time_zone(piece.zip), 'America/New_York'))
       END
$$;
COMMENT ON FUNCTION postalytics.estimated_delivery(postalytics.pieces) IS
    'when a piece is delivered, in its recipient''s time zone; NULL unless it is processed for delivery';
