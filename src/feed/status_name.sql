/*
 * status_name.sql
 *		status_names: names that users add for statuses of the feed.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TABLE postalytics.status_names (
    spelling text NOT NULL PRIMARY KEY
        CHECK (pg_catalog.length(pg_catalog.translate(spelling, E' ._-\t\n\r\f\v', '')) BETWEEN 1 AND 63
               AND pg_catalog.octet_length(pg_catalog.translate(spelling, E' ._-\t\n\r\f\v', '')) <= 63),
    status text NOT NULL
        CHECK (status IN ('Error', 'None', 'ignore')
               OR status OPERATOR(pg_catalog.=) ANY (pg_catalog.enum_range(NULL::postalytics.mail_status)::text[]))
);
COMMENT ON TABLE postalytics.status_names IS
    'additional names for statuses, production errors and events to ignore; after changes, call retry_rejects()';
COMMENT ON COLUMN postalytics.status_names.spelling IS
    'value of the field event_type; case, blanks, ''_'', ''-'' and ''.'' are ignored';
COMMENT ON COLUMN postalytics.status_names.status IS
    'a status, ''Error'' or ''None'' for production errors, or ''ignore'' for events that are neither stored nor rejected';

SELECT pg_catalog.pg_extension_config_dump('postalytics.status_names', '');

CREATE TRIGGER configuration_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON postalytics.status_names
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.configuration_changed();
ALTER TABLE postalytics.status_names ENABLE ALWAYS TRIGGER configuration_changed;
