/*
 * odoo.sql
 *		Joins pieces to the contacts of Odoo.  Run this in Odoo's database, as the
 *		role with which Odoo connects, which needs grant_read.  Can be run again.
 *
 * The mailing list has the contact's id in its field odoo_id.  A piece without that
 * field belongs to the contact with its e-mail address, if there is only one.
 */
CREATE INDEX IF NOT EXISTS res_partner_email_lower_idx ON public.res_partner (pg_catalog.lower(email)) WHERE active;

CREATE OR REPLACE VIEW public.partner_mail AS
SELECT COALESCE(i.id, e.id) AS partner_id,
       p.piece_id,
       c.name AS campaign,
       postalytics.label(p.status) AS status,
       p.status_at,
       p.response,
       p.returned_to_sender_at IS NOT NULL AS address_is_wrong
FROM postalytics.pieces AS p
LEFT JOIN postalytics.campaigns AS c ON c.campaign_id = p.campaign_id AND c.account = p.account
LEFT JOIN public.res_partner AS i ON i.id::text = p.fields ->> 'odoo_id'
LEFT JOIN LATERAL (
    SELECT pg_catalog.min(r.id) AS id
    FROM public.res_partner AS r
    WHERE pg_catalog.lower(r.email) = pg_catalog.lower(p.email)
      AND r.active
    HAVING pg_catalog.count(*) = 1
) AS e ON i.id IS NULL;
COMMENT ON VIEW public.partner_mail IS 'mail pieces, each with the contact it went to, or NULL if unknown';

-- Notifies channel partner of changed contacts, so that the mailing list can be updated.
CREATE OR REPLACE TRIGGER partner_changed
AFTER UPDATE ON public.res_partner
REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.notify('partner');
