/*
 * link_odoo.sql
 *		Links Odoo's contacts, so that the newest status of the pieces of each is written
 *		into it.  Run this in Odoo's database as a superuser, after odoo.sql.  Can be run
 *		again.
 *
 * First create two fields of model res.partner in Odoo's developer mode, under Settings,
 * Technical, Fields: x_mail_status (Char) and x_mail_status_at (Datetime).  Odoo stores
 * times in UTC, as link_contacts does in a column of type timestamp.
 */
CREATE OR REPLACE VIEW public.partner_status AS
SELECT r.id, r.email, r.x_mail_status, r.x_mail_status_at
FROM public.res_partner AS r
WHERE r.active;
ALTER VIEW public.partner_status OWNER TO odoo;
COMMENT ON VIEW public.partner_status IS 'contacts into which the status of mail is written: all except archived ones';

SELECT postalytics.link_contacts('public.partner_status', 'odoo_id', email_column => 'email',
                                 status_column => 'x_mail_status', status_at_column => 'x_mail_status_at');
