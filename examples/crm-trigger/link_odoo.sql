/*
 * link_odoo.sql
 *		Writes the status of the newest piece of each contact into Odoo's contacts.  Run
 *		this in Odoo's database as the owner of the extension, with the privileges of
 *		the role with which Odoo connects (a superuser has both).  Can be run again.
 *
 * Create the fields in Odoo, with Studio or under Settings, Technical, Fields, on model
 * res.partner: x_mail_status (Text or Char) and x_mail_status_at (Datetime).  Odoo
 * stores times in UTC.
 */
CREATE OR REPLACE VIEW public.partner_status AS
SELECT r.id, r.email, r.x_mail_status, r.x_mail_status_at
FROM public.res_partner AS r
WHERE r.active;
ALTER VIEW public.partner_status OWNER TO odoo;
COMMENT ON VIEW public.partner_status IS 'contacts that link_contacts writes, without archived ones';

SELECT postalytics.link_contacts('public.partner_status', 'odoo_id', email_column => 'email',
                                 status_column => 'x_mail_status', status_at_column => 'x_mail_status_at');
