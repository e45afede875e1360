/*
 * bar.sql
 *		bar and rate: show a share as a text bar and as a number.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.bar(value double precision, whole double precision, width integer DEFAULT 20)
RETURNS text
LANGUAGE c
STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_bar';
COMMENT ON FUNCTION postalytics.bar(double precision, double precision, integer) IS
    'text bar that shows value as a share of whole; it consists of # characters if the encoding is not UTF-8';

CREATE FUNCTION postalytics.rate(part bigint, whole bigint)
RETURNS numeric
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.round(part::numeric OPERATOR(pg_catalog./) NULLIF(whole, 0), 4);
COMMENT ON FUNCTION postalytics.rate(bigint, bigint) IS
    'part as a share of whole, from 0 to 1; NULL if whole is 0';
