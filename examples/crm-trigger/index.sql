/*
 * index.sql
 *		Indexes for the views, on the table of pieces.  Run this as the owner of the
 *		extension; the views also work without it.  Can be run again.
 */
CREATE INDEX IF NOT EXISTS pieces_odoo_id_idx ON postalytics.pieces ((fields ->> 'odoo_id'));
CREATE INDEX IF NOT EXISTS pieces_twenty_id_idx ON postalytics.pieces ((fields ->> 'twenty_id'));
CREATE INDEX IF NOT EXISTS pieces_email_lower_idx ON postalytics.pieces (pg_catalog.lower(email));
