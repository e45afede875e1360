/*
 * payload_events.sql
 *		The recipients that a payload is about.
 */

CREATE FUNCTION postalytics.payload_events(
    payload json,
    OUT event json,
    OUT piece_id text,
    OUT campaign_name text,
    OUT contact_id text,
    OUT email text)
RETURNS SETOF record
LANGUAGE c
STABLE STRICT
AS 'MODULE_PATHNAME', 'postalytics_payload_events';
COMMENT ON FUNCTION postalytics.payload_events(json) IS
    'internal: the events in a payload, valid or not, and what they name';

CREATE FUNCTION postalytics.names_recipient(payload json, contact_id text, email text)
RETURNS boolean
LANGUAGE c
STABLE
AS 'MODULE_PATHNAME', 'postalytics_names_recipient';
COMMENT ON FUNCTION postalytics.names_recipient(json, text, text) IS
    'internal: true if the payload of a stored event gives this contact id or e-mail address';

CREATE FUNCTION postalytics.mentions(payload json, addresses text[])
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT
AS 'MODULE_PATHNAME', 'postalytics_mentions';
COMMENT ON FUNCTION postalytics.mentions(json, text[]) IS
    'internal: true if a payload contains one of the e-mail addresses anywhere';
