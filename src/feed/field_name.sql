/*
 * field_name.sql
 *		field_names: names that users add for fields of the feed.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- A path that ends in '*' matches all paths that begin with the text before it.
CREATE TABLE postalytics.field_names (
    path text NOT NULL PRIMARY KEY
        CHECK (pg_catalog.length(pg_catalog.translate(path, E' ._-\t\n\r\f\v', '')) BETWEEN 1 AND 63
               AND pg_catalog.octet_length(pg_catalog.translate(path, E' ._-\t\n\r\f\v', '')) <= 63),
    field text NOT NULL
        CHECK (field IN ('mail_id', 'event_date', 'event_type', 'expected_delivery_date',
                         'account', 'campaign_id', 'drop_id', 'campaign_name', 'contact_id',
                         'first_name', 'last_name', 'company', 'email', 'city', 'state', 'zip', 'country',
                         'url', 'fields', 'error_code', 'error_description', 'address_updated',
                         'address', 'address2', 'phone', 'events')
               OR (field LIKE 'fields._%' AND pg_catalog.octet_length(field) <= 263)),
    CHECK ((path LIKE '%*') = (field = 'fields.*'))
);
COMMENT ON TABLE postalytics.field_names IS
    'additional names for fields of the feed; after changes, call retry_rejects()';
COMMENT ON COLUMN postalytics.field_names.path IS
    'path of the field in an event, such as to.givenName; case, blanks, ''_'', ''-'' and ''.'' are ignored; for ''fields.*'', a prefix of paths followed by ''*''';
COMMENT ON COLUMN postalytics.field_names.field IS
    'a column of inbox, ''fields'', a column that returned_mail reads from payloads, ''events'' for a member that contains events, ''fields.NAME'' for a value that becomes member NAME of fields, or ''fields.*'' for a path that ends in ''*''';

SELECT pg_catalog.pg_extension_config_dump('postalytics.field_names', '');

CREATE TRIGGER configuration_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON postalytics.field_names
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.configuration_changed();
ALTER TABLE postalytics.field_names ENABLE ALWAYS TRIGGER configuration_changed;
