/*
 * link_twenty.sql
 *		Does the same as link_odoo.sql for the people of Twenty.  Run it with the schema
 *		of the workspace in search_path, after twenty.sql.
 *
 * First create two fields in Twenty, under Settings, Data model, People, with the API
 * names mailStatus (Text) and mailStatusAt (Date and time).
 */
CREATE OR REPLACE VIEW person_status AS
SELECT p.id, p."emailsPrimaryEmail", p."mailStatus", p."mailStatusAt"
FROM person AS p
WHERE p."deletedAt" IS NULL;
ALTER VIEW person_status OWNER TO twenty;
COMMENT ON VIEW person_status IS 'people into which the status of mail is written: all except deleted ones';

SELECT postalytics.link_contacts('person_status', 'twenty_id', email_column => 'emailsPrimaryEmail',
                                 status_column => 'mailStatus', status_at_column => 'mailStatusAt');
