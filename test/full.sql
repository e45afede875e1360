/*
 * full.sql
 *		Creates the extension with data of every kind, which backups and upgrades
 *		must keep.
 */
CREATE EXTENSION postalytics_status;
SELECT postalytics.configure('latest', '36500d');
SELECT postalytics.create_sync('all');
SELECT postalytics.create_sync('some', campaigns => '{c0}', statuses => '{Mailed}', enabled => false);
INSERT INTO postalytics.field_names VALUES ('ref', 'mail_id');
SELECT postalytics.ingest((SELECT json_agg(json_build_object(
    'ref', i % 500, 'eventType', feed_code, 'campaignId', 'c' || i % 3, 'campaignName', 'Name ' || i % 3,
    'to', json_build_object('firstName', 'First ' || i, 'country', 'US'), 'fields', json_build_object('i', i),
    'eventDate', to_char(timestamp '2026-09-01' + i * interval '20 minutes', 'YYYY-MM-DD HH24:MI:SS')))
    FROM generate_series(1, 5000) AS i
    JOIN (SELECT feed_code, row_number() OVER () AS n FROM postalytics.statuses) AS s ON s.n = 1 + i % 11));
SELECT postalytics.ingest('[{"mailId": 1}, 17]', 'agency');
SELECT postalytics.ingest((SELECT json_agg(json_build_object('ref', i, 'eventType', 11, 'campaignId', 'c0', 'eventDate', '2026-09-02')) FROM generate_series(1, 20) AS i), 'agency');
SELECT postalytics.configure('feed_time_zone', 'America/New_York'), postalytics.configure('history', '20 days');
SELECT postalytics.ack('all', array_agg(delivery_id)) FROM postalytics.fetch('all', 50);
SELECT postalytics.nack('all', array_agg(delivery_id), 'HTTP "503"') FROM postalytics.fetch('all', 50);
SELECT count(*) FROM postalytics.fetch('all', 50);
SELECT count(*) FROM postalytics.maintain();
-- Contacts in a schema of its own, one of which could not be written.
CREATE SCHEMA crm;
CREATE TABLE crm.contact (id text PRIMARY KEY, mail_status text, mail_status_at timestamptz);
INSERT INTO crm.contact VALUES ('4992');
SELECT postalytics.link_contacts('crm.contact', 'i');
INSERT INTO postalytics.pending_links (contacts, piece_id, account, failed_at) VALUES ('crm.contact', '492', '', '-infinity');
CREATE VIEW public.mine AS SELECT piece_id FROM postalytics.pieces WHERE status OPERATOR(postalytics.>>) 'Mailed';
