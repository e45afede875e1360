/*
 * inbox.sql
 *		inbox: the view through which INSERT and COPY ingest events.
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

CREATE FUNCTION postalytics.inbox_insert()
RETURNS trigger
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_inbox_insert';
COMMENT ON FUNCTION postalytics.inbox_insert() IS
    'trigger: ingests the rows of a statement together at its end';

CREATE FUNCTION postalytics.inbox_row()
RETURNS trigger
LANGUAGE c
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
