/*
 * payload.sql
 *		Address details in a payload.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.payload_details(
    payload json,
    OUT error_code text,
    OUT error_description text,
    OUT address_updated boolean,
    OUT address text,
    OUT address2 text,
    OUT city text,
    OUT state text,
    OUT zip text,
    OUT phone text)
LANGUAGE c
STABLE STRICT
AS 'MODULE_PATHNAME', 'postalytics_payload_details';
COMMENT ON FUNCTION postalytics.payload_details(json) IS
    'address, phone number and address error in an event''s payload, in any spelling of field_names';
