/*
 * payload.sql
 *		What a payload says of an address.
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
    'what an event''s payload says of its address and of what was wrong with it, in any spelling of field_names';
