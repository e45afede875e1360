/*
 * lifecycle.sql
 *		The type mail_status, its partial order, and the properties of statuses, which
 *		every role may use.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TYPE postalytics.mail_status AS ENUM (
    'MailPieceCreated',
    'Addressed',
    'Printed',
    'Mailed',
    'InTransit',
    'InLocalArea',
    'ProcessedForDelivery',
    'ReRouted',
    'ReturnedToSender',
    'pURLOpened',
    'pURLCompleted'
);
COMMENT ON TYPE postalytics.mail_status IS
    'status of a mail piece; < compares in declaration order, << in the partial order of the lifecycle';

-- The partial order.  The operators have no negators, because neither a << b nor
-- b <<= a is true if a and b are incomparable.

CREATE FUNCTION postalytics.order_support(internal)
RETURNS internal
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_order_support';
COMMENT ON FUNCTION postalytics.order_support(internal) IS
    'internal: planner support for the operators of the partial order';

CREATE FUNCTION postalytics.precedes(a postalytics.mail_status, b postalytics.mail_status)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
SUPPORT postalytics.order_support
AS 'MODULE_PATHNAME', 'postalytics_precedes';
COMMENT ON FUNCTION postalytics.precedes(postalytics.mail_status, postalytics.mail_status) IS
    'true if b comes after a in the lifecycle (a << b)';

CREATE FUNCTION postalytics.follows(a postalytics.mail_status, b postalytics.mail_status)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
SUPPORT postalytics.order_support
AS 'MODULE_PATHNAME', 'postalytics_follows';
COMMENT ON FUNCTION postalytics.follows(postalytics.mail_status, postalytics.mail_status) IS
    'true if a comes after b in the lifecycle (a >> b)';

CREATE FUNCTION postalytics.precedes_or_equals(a postalytics.mail_status, b postalytics.mail_status)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
SUPPORT postalytics.order_support
AS 'MODULE_PATHNAME', 'postalytics_precedes_or_equals';
COMMENT ON FUNCTION postalytics.precedes_or_equals(postalytics.mail_status, postalytics.mail_status) IS
    'true if b is the same as a or comes after it in the lifecycle (a <<= b)';

CREATE FUNCTION postalytics.follows_or_equals(a postalytics.mail_status, b postalytics.mail_status)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
SUPPORT postalytics.order_support
AS 'MODULE_PATHNAME', 'postalytics_follows_or_equals';
COMMENT ON FUNCTION postalytics.follows_or_equals(postalytics.mail_status, postalytics.mail_status) IS
    'true if a is the same as b or comes after it in the lifecycle (a >>= b)';

CREATE FUNCTION postalytics.comparable(a postalytics.mail_status, b postalytics.mail_status)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
SUPPORT postalytics.order_support
AS 'MODULE_PATHNAME', 'postalytics_comparable';
COMMENT ON FUNCTION postalytics.comparable(postalytics.mail_status, postalytics.mail_status) IS
    'true if a and b are the same or one comes after the other in the lifecycle';

CREATE OPERATOR postalytics.<< (
    FUNCTION = postalytics.precedes,
    LEFTARG = postalytics.mail_status,
    RIGHTARG = postalytics.mail_status,
    COMMUTATOR = OPERATOR(postalytics.>>),
    RESTRICT = scalarltsel,
    JOIN = scalarltjoinsel
);
COMMENT ON OPERATOR postalytics.<< (postalytics.mail_status, postalytics.mail_status) IS
    'earlier in the lifecycle than';

CREATE OPERATOR postalytics.>> (
    FUNCTION = postalytics.follows,
    LEFTARG = postalytics.mail_status,
    RIGHTARG = postalytics.mail_status,
    COMMUTATOR = OPERATOR(postalytics.<<),
    RESTRICT = scalargtsel,
    JOIN = scalargtjoinsel
);
COMMENT ON OPERATOR postalytics.>> (postalytics.mail_status, postalytics.mail_status) IS
    'later in the lifecycle than';

CREATE OPERATOR postalytics.<<= (
    FUNCTION = postalytics.precedes_or_equals,
    LEFTARG = postalytics.mail_status,
    RIGHTARG = postalytics.mail_status,
    COMMUTATOR = OPERATOR(postalytics.>>=),
    RESTRICT = scalarlesel,
    JOIN = scalarlejoinsel
);
COMMENT ON OPERATOR postalytics.<<= (postalytics.mail_status, postalytics.mail_status) IS
    'the same as, or earlier in the lifecycle than';

CREATE OPERATOR postalytics.>>= (
    FUNCTION = postalytics.follows_or_equals,
    LEFTARG = postalytics.mail_status,
    RIGHTARG = postalytics.mail_status,
    COMMUTATOR = OPERATOR(postalytics.<<=),
    RESTRICT = scalargesel,
    JOIN = scalargejoinsel
);
COMMENT ON OPERATOR postalytics.>>= (postalytics.mail_status, postalytics.mail_status) IS
    'the same as, or later in the lifecycle than';

-- Properties of a status.

CREATE FUNCTION postalytics.label(status postalytics.mail_status)
RETURNS text
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_label';
COMMENT ON FUNCTION postalytics.label(postalytics.mail_status) IS
    'display form of a status, such as In Transit';

CREATE FUNCTION postalytics.track(status postalytics.mail_status)
RETURNS text
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_track';
COMMENT ON FUNCTION postalytics.track(postalytics.mail_status) IS
    'track of a status: production, postal, exception or response';

CREATE FUNCTION postalytics.feed_code(status postalytics.mail_status)
RETURNS integer
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_feed_code';
COMMENT ON FUNCTION postalytics.feed_code(postalytics.mail_status) IS
    'number that the feed uses for a status';

CREATE FUNCTION postalytics.is_terminal(status postalytics.mail_status)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_is_terminal';
COMMENT ON FUNCTION postalytics.is_terminal(postalytics.mail_status) IS
    'true if the journey of a piece ends with the status';

CREATE FUNCTION postalytics.is_repeatable(status postalytics.mail_status)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_is_repeatable';
COMMENT ON FUNCTION postalytics.is_repeatable(postalytics.mail_status) IS
    'true if each occurrence of the status, such as a visit to the pURL, is a new event';

CREATE FUNCTION postalytics.applies_in(status postalytics.mail_status, country text)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_applies_in';
COMMENT ON FUNCTION postalytics.applies_in(postalytics.mail_status, text) IS
    'true if the feed reports the status for pieces mailed to the country (US, CA); NULL for other countries';

CREATE FUNCTION postalytics.to_mail_status(spelling text)
RETURNS postalytics.mail_status
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_to_mail_status';
COMMENT ON FUNCTION postalytics.to_mail_status(text) IS
    'status with the given name, label or feed code, in any spelling of the feed; NULL if there is no such status';

CREATE VIEW postalytics.statuses
WITH (security_invoker = true) AS
SELECT s.status,
       postalytics.label(s.status) AS label,
       postalytics.track(s.status) AS track,
       postalytics.feed_code(s.status) AS feed_code,
       postalytics.applies_in(s.status, 'US') AS us,
       postalytics.applies_in(s.status, 'CA') AS canada,
       postalytics.is_terminal(s.status) AS terminal,
       postalytics.is_repeatable(s.status) AS repeatable
FROM pg_catalog.unnest(pg_catalog.enum_range(NULL::postalytics.mail_status)) AS s (status);
COMMENT ON VIEW postalytics.statuses IS
    'the statuses, in order, with their properties';
COMMENT ON COLUMN postalytics.statuses.status IS 'status';
COMMENT ON COLUMN postalytics.statuses.label IS 'display form';
COMMENT ON COLUMN postalytics.statuses.track IS 'production, postal, exception or response';
COMMENT ON COLUMN postalytics.statuses.feed_code IS 'number that the feed uses for the status';
COMMENT ON COLUMN postalytics.statuses.us IS 'true if the feed reports the status for pieces mailed to the United States';
COMMENT ON COLUMN postalytics.statuses.canada IS 'true if the feed reports the status for pieces mailed to Canada';
COMMENT ON COLUMN postalytics.statuses.terminal IS 'true if the journey of a piece ends with the status';
COMMENT ON COLUMN postalytics.statuses.repeatable IS 'true if each occurrence of the status, such as a visit to the pURL, is a new event';
