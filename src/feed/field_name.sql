/*
 * field_name.sql
 *		field_names: the users' own names for fields of the feed.
 */

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

CREATE TRIGGER configuration_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON postalytics.field_names
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.configuration_changed();
ALTER TABLE postalytics.field_names ENABLE ALWAYS TRIGGER configuration_changed;
