/*
 * ingest.sql
 *		ingest, inbox, rejects, and the users' own field names.
 */

CREATE TYPE postalytics.ingest_result AS (
    inserted bigint,
    duplicates bigint,
    rejected bigint
);
COMMENT ON TYPE postalytics.ingest_result IS
    'what became of the events of a call: the three add up to the events offered';

CREATE SEQUENCE postalytics.reject_id_seq;
COMMENT ON SEQUENCE postalytics.reject_id_seq IS
    'reject_id of rejects';

CREATE TABLE postalytics.rejects (
    reject_id bigint NOT NULL DEFAULT pg_catalog.nextval('postalytics.reject_id_seq') PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    account text,
    piece_id text,
    reason text NOT NULL,
    payload json
);
COMMENT ON TABLE postalytics.rejects IS
    'what arrived and could not be understood, whole, with the reason';
COMMENT ON COLUMN postalytics.rejects.account IS 'the account named with the call or in inbox';
COMMENT ON COLUMN postalytics.rejects.piece_id IS 'the piece, as far as it could be read';
COMMENT ON COLUMN postalytics.rejects.payload IS
    'the event as it came; of a call with more than 1,000 rejected events the whole call, once';

SELECT pg_catalog.pg_extension_config_dump('postalytics.rejects', '');
SELECT pg_catalog.pg_extension_config_dump('postalytics.reject_id_seq', '');

CREATE TABLE postalytics.field_names (
    path text NOT NULL PRIMARY KEY
        CHECK (pg_catalog.length(pg_catalog.translate(path, E' ._-\t\n\r\f\v', '')) BETWEEN 1 AND 63
               AND pg_catalog.octet_length(pg_catalog.translate(path, E' ._-\t\n\r\f\v', '')) <= 63),
    field text NOT NULL
        CHECK (field IN ('mail_id', 'event_date', 'event_type', 'expected_delivery_date',
                         'account', 'campaign_id', 'campaign_name', 'contact_id',
                         'first_name', 'last_name', 'company', 'email', 'zip', 'country',
                         'url', 'fields', 'error_code', 'error_description', 'address_updated',
                         'address', 'address2', 'city', 'state'))
);
COMMENT ON TABLE postalytics.field_names IS
    'further spellings of the feed''s fields; then call retry_rejects()';
COMMENT ON COLUMN postalytics.field_names.path IS
    'where the field stands in an event (to.givenName); case, blanks, ''_'' and ''-'' do not count';
COMMENT ON COLUMN postalytics.field_names.field IS
    'the field: a column of inbox, "fields", or a column that returned_mail reads from payloads';

SELECT pg_catalog.pg_extension_config_dump('postalytics.field_names', '');

CREATE FUNCTION postalytics.configuration_changed()
RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_configuration_changed';
COMMENT ON FUNCTION postalytics.configuration_changed() IS
    'trigger: tells every session to read the table anew';

CREATE TRIGGER configuration_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON postalytics.field_names
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.configuration_changed();

CREATE FUNCTION postalytics.ingest(payload json, account text DEFAULT NULL)
RETURNS postalytics.ingest_result
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_ingest';
COMMENT ON FUNCTION postalytics.ingest(json, text) IS
    'store an event, or an array of them, wrapped in data, events or items or not';

CREATE FUNCTION postalytics.retry_rejects()
RETURNS postalytics.ingest_result
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_retry_rejects';
COMMENT ON FUNCTION postalytics.retry_rejects() IS
    'ingest the rejects again; those understood now leave the table';

CREATE VIEW postalytics.inbox AS
SELECT NULL::text AS mail_id,
       NULL::text AS event_date,
       NULL::text AS event_type,
       NULL::text AS expected_delivery_date,
       NULL::text AS account,
       NULL::text AS campaign_id,
       NULL::text AS campaign_name,
       NULL::text AS contact_id,
       NULL::text AS first_name,
       NULL::text AS last_name,
       NULL::text AS company,
       NULL::text AS email,
       NULL::text AS zip,
       NULL::text AS country,
       NULL::text AS url,
       NULL::json AS payload
WHERE false;
COMMENT ON VIEW postalytics.inbox IS
    'insert-only: a row is an event, in flat columns or whole in payload; for INSERT and COPY';

CREATE FUNCTION postalytics.inbox_insert()
RETURNS trigger
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_inbox_insert';
COMMENT ON FUNCTION postalytics.inbox_insert() IS
    'trigger: ingests a statement''s rows together at its end';

CREATE FUNCTION postalytics.inbox_row()
RETURNS trigger
LANGUAGE c
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_inbox_row';
COMMENT ON FUNCTION postalytics.inbox_row() IS
    'trigger: keeps a row until its statement ends';

CREATE TRIGGER inbox_begin
BEFORE INSERT ON postalytics.inbox
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.inbox_insert();

CREATE TRIGGER inbox_row
INSTEAD OF INSERT ON postalytics.inbox
FOR EACH ROW
EXECUTE FUNCTION postalytics.inbox_row();

CREATE TRIGGER inbox_end
AFTER INSERT ON postalytics.inbox
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.inbox_insert();

CREATE FUNCTION postalytics.offered_events()
RETURNS SETOF postalytics.events
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_offered_events';
COMMENT ON FUNCTION postalytics.offered_events() IS
    'internal: the events of the running ingest, for its INSERT';

CREATE FUNCTION postalytics.payload_details(
    payload json,
    OUT error_code text,
    OUT error_description text,
    OUT address_updated boolean,
    OUT address text,
    OUT address2 text,
    OUT city text,
    OUT state text,
    OUT zip text)
LANGUAGE c
STABLE STRICT
AS 'MODULE_PATHNAME', 'postalytics_payload_details';
COMMENT ON FUNCTION postalytics.payload_details(json) IS
    'what an event''s payload says of its address and of what was wrong with it, in any spelling of field_names';
