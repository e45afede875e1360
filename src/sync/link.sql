/*
 * link.sql
 *		link_contacts: writes the status of pieces into the contacts of a CRM whose
 *		tables are in the same database.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- contacts is not of type regclass, because a dump of schema postalytics alone could then
-- not be restored without the contacts.
CREATE TABLE postalytics.contact_links (
    contacts text COLLATE "C" NOT NULL PRIMARY KEY,
    owner name NOT NULL,
    id_field text,
    id_column name NOT NULL,
    email_column name,
    status_column name NOT NULL,
    status_at_column name NOT NULL,
    CHECK (id_field IS NOT NULL OR email_column IS NOT NULL)
);
COMMENT ON TABLE postalytics.contact_links IS
    'tables and views of contacts into which the status of pieces is written; see link_contacts';
COMMENT ON COLUMN postalytics.contact_links.contacts IS 'qualified name of the table or updatable view of contacts';
COMMENT ON COLUMN postalytics.contact_links.owner IS 'role that owned the contacts when they were linked; nothing is written while they have another owner';
COMMENT ON COLUMN postalytics.contact_links.id_field IS 'field of the mailing list that contains the id of the contact; NULL if contacts are found only by e-mail address';
COMMENT ON COLUMN postalytics.contact_links.id_column IS 'column that contains the id of the contact';
COMMENT ON COLUMN postalytics.contact_links.email_column IS 'column that contains the e-mail address; NULL if contacts are found only by id';
COMMENT ON COLUMN postalytics.contact_links.status_column IS 'column for the status';
COMMENT ON COLUMN postalytics.contact_links.status_at_column IS 'column for the time of the status';

SELECT pg_catalog.pg_extension_config_dump('postalytics.contact_links', '');

CREATE TRIGGER configuration_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON postalytics.contact_links
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.configuration_changed();
ALTER TABLE postalytics.contact_links ENABLE ALWAYS TRIGGER configuration_changed;

-- This is a queue.  A piece can occur in it more than once.
CREATE TABLE postalytics.pending_links (
    contacts text COLLATE "C" NOT NULL,
    piece_id text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL,
    since timestamptz NOT NULL DEFAULT pg_catalog.now(),
    failed_at timestamptz NOT NULL
);
-- A publication FOR ALL TABLES includes this table.  As there is no primary key, UPDATE
-- and DELETE would then fail without another replica identity.
ALTER TABLE postalytics.pending_links REPLICA IDENTITY FULL;
CREATE INDEX pending_links_contacts_idx ON postalytics.pending_links (contacts, failed_at, since);
COMMENT ON TABLE postalytics.pending_links IS
    'pieces whose status could not be written into linked contacts, because the contact was locked or an error occurred; tried again by ingest and by maintain()';
COMMENT ON COLUMN postalytics.pending_links.contacts IS 'qualified name of the table or view of contacts';
COMMENT ON COLUMN postalytics.pending_links.piece_id IS 'piece whose status is pending';
COMMENT ON COLUMN postalytics.pending_links.account IS 'account of the piece';
COMMENT ON COLUMN postalytics.pending_links.since IS 'when the piece became pending';
COMMENT ON COLUMN postalytics.pending_links.failed_at IS 'when an error last occurred; -infinity if there was none and the contact was only locked';

SELECT pg_catalog.pg_extension_config_dump('postalytics.pending_links', '');

CREATE FUNCTION postalytics.link_contacts(
    contacts regclass,
    id_field text,
    id_column name DEFAULT 'id',
    email_column name DEFAULT NULL,
    status_column name DEFAULT 'mail_status',
    status_at_column name DEFAULT 'mail_status_at'
)
RETURNS bigint
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_link_contacts';
COMMENT ON FUNCTION postalytics.link_contacts(regclass, text, name, name, name, name) IS
    'write the newest status of the pieces of each contact into a table or updatable view of contacts, now and whenever events are stored; returns the number of contacts updated now';

-- A name without a schema is looked up in the caller's search_path, so the function has no
-- SET clause, and sets search_path only after the lookup.
CREATE FUNCTION postalytics.unlink_contacts(contacts text)
RETURNS boolean
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_unlink_contacts';
COMMENT ON FUNCTION postalytics.unlink_contacts(text) IS
    'stop writing the status of pieces into a table or view of contacts; returns false if it was not linked';

CREATE FUNCTION postalytics.retry_links()
RETURNS bigint
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_retry_links';
COMMENT ON FUNCTION postalytics.retry_links() IS
    'internal: write pending pieces into their contacts; returns the number of pieces that are no longer pending';
