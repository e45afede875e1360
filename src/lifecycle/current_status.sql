/*
 * current_status.sql
 *		The aggregate current_status, which every role may use.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.current_status_accum(internal, postalytics.mail_status, timestamptz)
RETURNS internal
LANGUAGE c
IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_current_status_accum';
COMMENT ON FUNCTION postalytics.current_status_accum(internal, postalytics.mail_status, timestamptz) IS
    'internal: aggregate transition function';

CREATE FUNCTION postalytics.current_status_combine(internal, internal)
RETURNS internal
LANGUAGE c
IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_current_status_combine';
COMMENT ON FUNCTION postalytics.current_status_combine(internal, internal) IS
    'internal: aggregate combine function';

CREATE FUNCTION postalytics.current_status_serialize(internal)
RETURNS bytea
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_current_status_serialize';
COMMENT ON FUNCTION postalytics.current_status_serialize(internal) IS
    'internal: aggregate serial function';

CREATE FUNCTION postalytics.current_status_deserialize(bytea, internal)
RETURNS internal
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_current_status_deserialize';
COMMENT ON FUNCTION postalytics.current_status_deserialize(bytea, internal) IS
    'internal: aggregate deserial function';

CREATE FUNCTION postalytics.current_status_final(internal)
RETURNS postalytics.mail_status
LANGUAGE c
IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_current_status_final';
COMMENT ON FUNCTION postalytics.current_status_final(internal) IS
    'internal: aggregate final function';

CREATE AGGREGATE postalytics.current_status(postalytics.mail_status, timestamptz) (
    SFUNC = postalytics.current_status_accum,
    STYPE = internal,
    SSPACE = 88,
    FINALFUNC = postalytics.current_status_final,
    COMBINEFUNC = postalytics.current_status_combine,
    SERIALFUNC = postalytics.current_status_serialize,
    DESERIALFUNC = postalytics.current_status_deserialize,
    PARALLEL = SAFE
);
COMMENT ON AGGREGATE postalytics.current_status(postalytics.mail_status, timestamptz) IS
    'current status of a piece, from the statuses and times of its events in any order';
