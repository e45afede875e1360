/*
 * person.sql
 *		Determines whether a payload is about a person.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.payload_fields(payload json, OUT campaign_name text, OUT contact_id text, OUT email text)
LANGUAGE c
STABLE STRICT
AS 'MODULE_PATHNAME', 'postalytics_payload_fields';
COMMENT ON FUNCTION postalytics.payload_fields(json) IS
    'internal: fields of the payload of a stored event';

CREATE FUNCTION postalytics.names_recipient(payload json, contact_id text, email text)
RETURNS boolean
LANGUAGE c
STABLE
AS 'MODULE_PATHNAME', 'postalytics_names_recipient';
COMMENT ON FUNCTION postalytics.names_recipient(json, text, text) IS
    'internal: true if the payload of a stored event contains this contact id or e-mail address';

CREATE FUNCTION postalytics.is_recipient(value text, email text)
RETURNS boolean
LANGUAGE c
IMMUTABLE STRICT
AS 'MODULE_PATHNAME', 'postalytics_is_recipient';
COMMENT ON FUNCTION postalytics.is_recipient(text, text) IS
    'internal: true if the value of an e-mail field is this address or contains it';

CREATE FUNCTION postalytics.mentions(payload json, emails text[])
RETURNS boolean
LANGUAGE c
IMMUTABLE
AS 'MODULE_PATHNAME', 'postalytics_mentions';
COMMENT ON FUNCTION postalytics.mentions(json, text[]) IS
    'internal: true if a payload contains one of the e-mail addresses anywhere';

CREATE FUNCTION postalytics.is_about(
    payload json,
    reject_account text,
    account text,
    piece_ids text[],
    contact_ids text[],
    emails text[])
RETURNS boolean
LANGUAGE c
STABLE
AS 'MODULE_PATHNAME', 'postalytics_is_about';
COMMENT ON FUNCTION postalytics.is_about(json, text, text, text[], text[], text[]) IS
    'internal: true if an event in a reject is about a person';

CREATE FUNCTION postalytics.rejected_events(
    payload json,
    reject_account text,
    account text,
    piece_ids text[],
    contact_ids text[],
    emails text[],
    OUT event json,
    OUT event_account text,
    OUT is_about boolean)
RETURNS SETOF record
LANGUAGE c
STABLE
AS 'MODULE_PATHNAME', 'postalytics_rejected_events';
COMMENT ON FUNCTION postalytics.rejected_events(json, text, text, text[], text[], text[]) IS
    'internal: events in a reject, their accounts, and whether each is about a person';
