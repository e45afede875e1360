/*
 * inbox.sql
 *		inbox: the view through which INSERT and COPY ingest events.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE VIEW postalytics.inbox
WITH (security_invoker = true) AS
SELECT NULL::text AS mail_id,
       NULL::text AS event_date,
       NULL::text AS event_type,
       NULL::text AS expected_delivery_date,
       NULL::text AS account,
       NULL::text AS campaign_id,
       NULL::text AS drop_id,
       NULL::text AS campaign_name,
       NULL::text AS contact_id,
       NULL::text AS first_name,
       NULL::text AS last_name,
       NULL::text AS company,
       NULL::text AS email,
       NULL::text AS city,
       NULL::text AS state,
       NULL::text AS zip,
       NULL::text AS country,
       NULL::text AS url,
       NULL::json AS payload
WHERE false;
COMMENT ON VIEW postalytics.inbox IS
    'insert-only view for INSERT and COPY; each row is an event, in flat columns or as JSON in payload';
COMMENT ON COLUMN postalytics.inbox.mail_id IS 'id of the mail piece';
COMMENT ON COLUMN postalytics.inbox.event_date IS 'time of the event';
COMMENT ON COLUMN postalytics.inbox.event_type IS 'status, in any spelling, or feed code';
COMMENT ON COLUMN postalytics.inbox.expected_delivery_date IS 'expected delivery date';
COMMENT ON COLUMN postalytics.inbox.account IS 'account of the event, like argument account of ingest';
COMMENT ON COLUMN postalytics.inbox.campaign_id IS 'id of the campaign';
COMMENT ON COLUMN postalytics.inbox.drop_id IS 'id of the drop';
COMMENT ON COLUMN postalytics.inbox.campaign_name IS 'name of the campaign';
COMMENT ON COLUMN postalytics.inbox.contact_id IS 'id of the contact';
COMMENT ON COLUMN postalytics.inbox.first_name IS 'first name of the recipient';
COMMENT ON COLUMN postalytics.inbox.last_name IS 'last name of the recipient';
COMMENT ON COLUMN postalytics.inbox.company IS 'company of the recipient';
COMMENT ON COLUMN postalytics.inbox.email IS 'e-mail address of the recipient';
COMMENT ON COLUMN postalytics.inbox.city IS 'city of the recipient';
COMMENT ON COLUMN postalytics.inbox.state IS 'state of the recipient';
COMMENT ON COLUMN postalytics.inbox.zip IS 'ZIP code of the recipient';
COMMENT ON COLUMN postalytics.inbox.country IS 'country of the recipient';
COMMENT ON COLUMN postalytics.inbox.url IS 'URL that was visited';
COMMENT ON COLUMN postalytics.inbox.payload IS 'an event or several events as JSON, in any form that ingest accepts; to be used instead of the other columns, except account';

CREATE FUNCTION postalytics.inbox_insert()
RETURNS trigger
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_inbox_insert';
COMMENT ON FUNCTION postalytics.inbox_insert() IS
    'internal: trigger: ingests the rows of a statement together at the end of the statement';

CREATE FUNCTION postalytics.inbox_row()
RETURNS trigger
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_inbox_row';
COMMENT ON FUNCTION postalytics.inbox_row() IS
    'internal: trigger: keeps a row until the statement ends';

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
