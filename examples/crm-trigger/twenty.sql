/*
 * twenty.sql
 *		Joins pieces to the people of Twenty.  Run this in Twenty's database, as the
 *		role with which Twenty connects, which needs grant_read, with the schema of its
 *		workspace in search_path.  Can be run again.
 *
 * This is like odoo.sql, with the field twenty_id.  Ids are of type uuid, and a deleted
 * person remains as a row whose deletedAt is set.
 */
CREATE INDEX IF NOT EXISTS person_email_lower_idx ON person (lower("emailsPrimaryEmail")) WHERE "deletedAt" IS NULL;

CREATE OR REPLACE VIEW person_mail AS
SELECT COALESCE(i.id, e.id) AS person_id,
       p.piece_id,
       c.name AS campaign,
       postalytics.label(p.status) AS status,
       p.status_at,
       p.response,
       p.returned_to_sender_at IS NOT NULL AS address_is_wrong
FROM postalytics.pieces AS p
LEFT JOIN postalytics.campaigns AS c ON c.campaign_id = p.campaign_id AND c.account = p.account
LEFT JOIN person AS i ON i.id::text = p.fields ->> 'twenty_id'
LEFT JOIN LATERAL (
    SELECT min(r.id::text)::uuid AS id
    FROM person AS r
    WHERE lower(r."emailsPrimaryEmail") = lower(p.email)
      AND r."deletedAt" IS NULL
    HAVING count(*) = 1
) AS e ON i.id IS NULL;
COMMENT ON VIEW person_mail IS 'mail pieces, each with the person it went to, or NULL if unknown';

CREATE OR REPLACE TRIGGER person_changed
AFTER UPDATE ON person
REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.notify('person');
