/*
 * payload_account.sql
 *		The account that a payload names.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.payload_account(payload json)
RETURNS text
LANGUAGE c
STABLE STRICT
AS 'MODULE_PATHNAME', 'postalytics_payload_account';
COMMENT ON FUNCTION postalytics.payload_account(json) IS
    'internal: account named in a payload; it does not determine the account of the event';
