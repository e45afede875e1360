-- link_contacts writes the status of pieces into the contacts of a CRM.
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SET client_min_messages = warning;
SELECT configure('latest', '36500d');
CREATE ROLE regress_postalytics_crm;
CREATE ROLE regress_postalytics_other;
CREATE SCHEMA crm AUTHORIZATION regress_postalytics_crm;
SET ROLE regress_postalytics_crm;
CREATE TABLE crm.partner (
    id integer PRIMARY KEY,
    email varchar,
    active boolean NOT NULL DEFAULT true,
    mail_status varchar(40),
    mail_status_at timestamp
);
INSERT INTO crm.partner (id, email, active)
VALUES (1, 'one@x.example', true), (2, 'Two@x.example', true), (3, 'twice@x.example', true), (4, 'twice@x.example', true),
       (5, 'gone@x.example', false), (6, 'gone@x.example', true);
RESET ROLE;
CREATE FUNCTION piece(mail_id text, event_type integer, day date, email text, id text) RETURNS json LANGUAGE sql AS $$
    SELECT json_build_object('mailId', mail_id, 'eventType', event_type, 'eventDate', day, 'to', json_build_object('email', email),
                             'meta', json_build_object('fields', json_build_object('crm_id', id)))
$$;
CREATE VIEW statuses_of AS SELECT id, mail_status, mail_status_at FROM crm.partner ORDER BY id;

-- The caller must have the privileges of the owner of the contacts and those of a manager.
-- The owner must be able to read pieces.
\set VERBOSITY terse
SELECT ingest(piece('a', 4, '2026-10-05', NULL, '1'));
SELECT link_contacts('crm.partner', 'crm_id');
SELECT grant_read('regress_postalytics_crm');
SET ROLE regress_postalytics_crm;
SELECT postalytics.link_contacts('crm.partner', 'crm_id');
RESET ROLE;
GRANT USAGE ON SCHEMA crm TO regress_postalytics_other;
SELECT grant_manage('regress_postalytics_other');
SET ROLE regress_postalytics_other;
SELECT postalytics.link_contacts('crm.partner', 'crm_id');
SELECT postalytics.unlink_contacts('crm.partner');
RESET ROLE;
SELECT link_contacts('crm.partner', 'crm_id'), link_contacts('crm.partner', 'crm_id') AS again;
TABLE statuses_of;

-- By id, by e-mail address in any case, but not by an address that two contacts have.
SELECT link_contacts('crm.partner', 'crm_id', email_column => 'email');
SELECT ingest(json_build_array(
    piece('b', 5, '2026-10-06', 'two@X.example', NULL), piece('c', 5, '2026-10-06', 'twice@x.example', NULL),
    piece('d', 5, '2026-10-06', 'two@x.example', '3'), piece('e', 5, '2026-10-06', 'one@x.example', 'no number'),
    piece('f', 5, '2026-10-06', NULL, '99999999999999999999'), piece('g', 5, '2026-10-06', NULL, '77'),
    piece('h', 5, '2026-10-06', 'gone@x.example', NULL)));
TABLE statuses_of;

-- The newest piece of a contact decides, whatever arrives first, and a repeated event
-- changes nothing.
SELECT ingest(json_build_array(piece('i', 6, '2026-10-09', NULL, '2'), piece('j', 3, '2026-10-08', NULL, '2'), piece('k', 10, '2026-10-01', NULL, '2')));
SELECT ingest(json_build_array(piece('i', 5, '2026-10-08', NULL, '2'), piece('k', 10, '2026-10-01', NULL, '2')));
SELECT * FROM statuses_of WHERE id = 2;

-- Events that are inserted count, too.  A piece that only responded has no status.
SELECT ingest(piece('l', 7, '2026-10-12', NULL, '1'));
INSERT INTO events (piece_id, status, occurred_at, payload) VALUES ('m', 'Mailed', '2026-10-11', piece('m', 11, '2026-10-11', NULL, '1'));
SELECT * FROM statuses_of WHERE id = 1;

-- A correction is written when the contacts are linked again.
SELECT retract_event('m', 'Mailed', '2026-10-11');
SELECT ingest(piece('m', 11, '2026-10-02', NULL, '1'));
SELECT * FROM statuses_of WHERE id = 1;
SELECT link_contacts('crm.partner', 'crm_id', email_column => 'email');
SELECT * FROM statuses_of WHERE id = 1;

-- A view leaves contacts out, and renames columns.  Other types: uuid, text, the enum.
SET ROLE regress_postalytics_crm;
CREATE VIEW crm.active AS SELECT id, email, mail_status AS seen, mail_status_at AS seen_at FROM crm.partner WHERE active;
CREATE TABLE crm.person ("Id" uuid PRIMARY KEY, "mailStatus" postalytics.mail_status, "mailStatusAt" timestamptz);
CREATE TABLE crm.lead (key text PRIMARY KEY, mail_status text, mail_status_at timestamptz);
INSERT INTO crm.person VALUES ('20931000-0000-4000-8000-00000000000a');
INSERT INTO crm.lead VALUES ('20931000-0000-4000-8000-00000000000A'), ('7');
RESET ROLE;
SELECT unlink_contacts('crm.partner'), unlink_contacts('crm.partner') AS again;
SELECT link_contacts('crm.active', NULL, email_column => 'email', status_column => 'seen', status_at_column => 'seen_at');
SELECT link_contacts('crm.person', 'crm_id', id_column => 'Id', status_column => 'mailStatus', status_at_column => 'mailStatusAt');
SELECT link_contacts('crm.lead', 'crm_id', id_column => 'key');
SELECT ingest(json_build_array(piece('n', 6, '2026-10-12', 'gone@x.example', '20931000-0000-4000-8000-00000000000A'),
                               piece('o', 6, '2026-10-12', NULL, '20931000-0000-4000-8000-00000000000'), piece('p', 6, '2026-10-12', NULL, '7')));
SELECT * FROM statuses_of WHERE id IN (5, 6);
TABLE crm.person;
TABLE crm.lead;
SELECT * FROM contact_links ORDER BY contacts;
SELECT * FROM pending_links;

-- Invalid arguments.
SELECT link_contacts(NULL, 'crm_id');
SELECT link_contacts('crm.lead', 'crm_id', id_column => NULL);
SELECT link_contacts('crm.lead', 'crm_id', status_column => NULL);
SELECT link_contacts('crm.lead', NULL, id_column => 'key');
SELECT link_contacts('crm.lead', 'crm_id');
SELECT link_contacts('crm.lead', 'crm_id', id_column => 'ctid');
SELECT link_contacts('crm.lead', 'crm_id', id_column => 'mail_status_at');
SELECT link_contacts('crm.lead', 'crm_id', id_column => 'key', status_at_column => 'mail_status');
\set VERBOSITY sqlstate
SELECT link_contacts('crm.lead', 'crm_id', id_column => 'key', email_column => 'mail_status_at');
\set VERBOSITY terse
SELECT link_contacts('crm.partner_pkey', 'crm_id');
CREATE TEMP TABLE contact (id integer, mail_status text, mail_status_at timestamptz);
\set VERBOSITY sqlstate
SELECT link_contacts('contact', 'crm_id');
\set VERBOSITY terse
DROP TABLE contact;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT link_contacts('crm.lead', 'crm_id', id_column => 'key');
ROLLBACK;
SELECT link_contacts(0, 'crm_id');
SELECT unlink_contacts(NULL);
SELECT unlink_contacts('no such, name');
SELECT unlink_contacts('no_such');
SELECT unlink_contacts('no_such.table');

-- Columns of domains, and partitioned contacts.
SET ROLE regress_postalytics_crm;
CREATE DOMAIN crm.key AS integer CHECK (VALUE > 0);
CREATE DOMAIN crm.label AS varchar(40);
CREATE TABLE crm.parted (id crm.key, mail_status crm.label, mail_status_at timestamptz) PARTITION BY RANGE (id);
CREATE TABLE crm.parted_1 PARTITION OF crm.parted FOR VALUES FROM (1) TO (8);
CREATE TABLE crm.parted_2 PARTITION OF crm.parted FOR VALUES FROM (8) TO (100);
INSERT INTO crm.parted VALUES (7), (8);
RESET ROLE;
SELECT link_contacts('crm.parted', 'crm_id');
TABLE crm.parted;
SELECT unlink_contacts('crm.parted');

-- Names that need quotes, and a field that looks like SQL.
SET ROLE regress_postalytics_crm;
CREATE TABLE crm."Con'tact; --" ("i""d" bigint PRIMARY KEY, "mail status" text, "at'" timestamptz);
INSERT INTO crm."Con'tact; --" VALUES (8);
RESET ROLE;
SELECT link_contacts('crm."Con''tact; --"', $f$'; DROP TABLE crm.lead; --$f$, 'i"d', status_column => 'mail status', status_at_column => 'at''');
SELECT ingest($${"mailId": "q", "eventType": 6, "eventDate": "2026-10-12", "meta": {"fields": {"'; DROP TABLE crm.lead; --": "8"}}}$$);
TABLE crm."Con'tact; --";

-- An error of the contacts does not fail ingest.  The pieces are pending, and written
-- once it works.
ALTER TABLE crm.lead ADD CHECK (mail_status <> 'Mailed');
SELECT ingest(piece('r', 11, '2026-10-13', NULL, '7'));
SELECT ingest(piece('s', 11, '2026-10-14', NULL, '7'));
SELECT contacts, piece_id, account FROM pending_links ORDER BY 2;
SELECT action, relation, detail FROM maintenance_log;
ALTER TABLE crm.lead DROP CONSTRAINT lead_mail_status_check;
SELECT retry_links(), retry_links() AS again;
SELECT * FROM crm.lead WHERE key = '7';
SELECT count(*) FROM pending_links;
-- Also with the next ingest, and when contacts are dropped and unlinked.
REVOKE USAGE ON SCHEMA crm FROM regress_postalytics_crm;
SELECT ingest(piece('t', 5, '2026-10-15', NULL, '7'));
SELECT count(*) FROM pending_links;
GRANT USAGE ON SCHEMA crm TO regress_postalytics_crm;
SELECT ingest(piece('u', 6, '2026-10-15', NULL, NULL));
SELECT count(*) AS failed_just_now FROM pending_links;
UPDATE pending_links SET failed_at = failed_at - interval '2 minutes';
SELECT ingest(piece('u', 5, '2026-10-14', NULL, NULL));
SELECT * FROM crm.lead WHERE key = '7';
SELECT count(*) FROM pending_links;
DROP TABLE crm.lead;
SELECT ingest(piece('v', 6, '2026-10-16', NULL, '7'));
SELECT count(*) FROM pending_links;
SELECT unlink_contacts('crm.lead');
SELECT count(*) FROM pending_links;

-- One contact that cannot be written does not keep the others from being written.
ALTER TABLE crm.partner ADD CHECK (id <> 2 OR mail_status_at < '2026-10-16');
SELECT ingest(json_build_array(piece('1st', 6, '2026-10-16', 'one@x.example', NULL), piece('2nd', 6, '2026-10-16', 'two@x.example', NULL),
                               piece('3rd', 6, '2026-10-16', 'gone@x.example', NULL)));
SELECT piece_id FROM pending_links ORDER BY 1;
SELECT retry_links();
SELECT piece_id FROM pending_links ORDER BY 1;
ALTER TABLE crm.partner DROP CONSTRAINT partner_check;
SELECT retry_links();

-- What is pending for contacts that are not linked is deleted.
INSERT INTO pending_links (contacts, piece_id, account, failed_at) VALUES ('crm.no', 'a', '', '-infinity');
SELECT retry_links();
SELECT count(*) FROM pending_links;

-- A manager cannot write into a table of another role, by giving it the name of contacts
-- that the manager has linked.
CREATE ROLE regress_postalytics_mallory;
SELECT grant_manage('regress_postalytics_mallory'), grant_read('regress_postalytics_mallory');
CREATE SCHEMA mallory AUTHORIZATION regress_postalytics_mallory;
CREATE SCHEMA app AUTHORIZATION regress_postalytics_mallory;
CREATE TABLE app.users (id integer, mail_status text, mail_status_at timestamptz);
INSERT INTO app.users VALUES (1);
SET ROLE regress_postalytics_mallory;
SELECT postalytics.link_contacts('app.users', 'crm_id');
CREATE TABLE mallory.users (id integer, mail_status text, mail_status_at timestamptz);
SELECT postalytics.link_contacts('mallory.users', 'crm_id');
DROP TABLE mallory.users;
RESET ROLE;
ALTER SCHEMA mallory RENAME TO gone;
ALTER SCHEMA app RENAME TO mallory;
SELECT ingest(piece('1st', 5, '2026-10-15', NULL, '1'));
TABLE mallory.users;
SELECT contacts, piece_id FROM pending_links;
SELECT unlink_contacts('mallory.users');
DROP SCHEMA mallory, gone CASCADE;

-- An error that looks like a canceled query does not fail ingest.  The text of an error goes
-- only to the server log.
SET ROLE regress_postalytics_crm;
CREATE FUNCTION crm.cancel() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'address of %', OLD.id USING ERRCODE = 'query_canceled'; END $$;
CREATE TRIGGER cancel BEFORE UPDATE ON crm.partner FOR EACH ROW EXECUTE FUNCTION crm.cancel();
RESET ROLE;
SET client_min_messages = log;
DELETE FROM maintenance_log;
SELECT ingest(piece('4th', 6, '2026-10-17', 'one@x.example', NULL));
SET client_min_messages = warning;
SELECT action, relation, detail FROM maintenance_log;
DROP TRIGGER cancel ON crm.partner;
SELECT retry_links();

-- What the owner may not read is not written.
SELECT revoke_read('regress_postalytics_crm');
SELECT grant_read('regress_postalytics_crm', 'client');
SELECT ingest(json_build_array(piece('w', 6, '2026-10-17', 'two@x.example', NULL)), 'other');
SELECT ingest(json_build_array(piece('w', 5, '2026-10-17', 'two@x.example', NULL)), 'client');
SELECT * FROM statuses_of WHERE id = 2;

-- Triggers of the contacts run as their owner, in their schema, and leave nothing behind.
SET ROLE regress_postalytics_crm;
CREATE TABLE crm.seen (by_whom name, session_role text, path text, id integer);
CREATE FUNCTION crm.spy() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO seen VALUES (current_user, current_setting('role'), current_setting('search_path'), NEW.id);
    PERFORM set_config('search_path', 'crm', false), set_config('work_mem', '64kB', false), set_config('app.owned', 'yes', false);
    BEGIN
        CREATE TEMP TABLE events (piece_id text);
    EXCEPTION
        WHEN insufficient_privilege THEN
            NULL;
    END;
    BEGIN
        EXECUTE 'RESET ROLE';
    EXCEPTION
        WHEN insufficient_privilege THEN
            NULL;
    END;
    RETURN NEW;
END
$$;
CREATE TRIGGER spy BEFORE UPDATE ON crm.partner FOR EACH ROW EXECUTE FUNCTION crm.spy();
RESET ROLE;
SELECT ingest(json_build_array(piece('x', 6, '2026-10-18', 'two@x.example', NULL)), 'client');
SELECT * FROM crm.seen;
SELECT current_user = session_user AS same, current_setting('search_path') AS path, current_setting('work_mem') AS work_mem, current_setting('app.owned', true) AS owned,
       to_regclass('pg_temp.events') AS temporary;

-- They cannot act in the name of the session, and do not see its statement.
SET ROLE regress_postalytics_crm;
DROP TRIGGER spy ON crm.partner;
CREATE TABLE crm.caught (error text, query text, context text);
CREATE FUNCTION crm.act() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    context text;
BEGIN
    GET DIAGNOSTICS context = PG_CONTEXT;
    PERFORM postalytics.configure('audit_retention', '1 day');
    RETURN NEW;
EXCEPTION
    WHEN OTHERS THEN
        INSERT INTO caught VALUES (SQLERRM, current_query(), context);
        RETURN NEW;
END
$$;
CREATE TRIGGER act BEFORE UPDATE ON crm.partner FOR EACH ROW EXECUTE FUNCTION crm.act();
RESET ROLE;
SELECT grant_manage('regress_postalytics_crm');
DO $$ BEGIN PERFORM postalytics.ingest(json_build_array(public.piece('y', 6, '2026-10-19', 'two@x.example', NULL)), 'client'); END $$;
SELECT error, query, context NOT LIKE '%ingest%' AS hidden FROM crm.caught;
SELECT setting('audit_retention');

-- The calls are in audit_log.
SELECT DISTINCT action, object FROM audit_log WHERE action LIKE '%link%' ORDER BY 1, 2;
\set VERBOSITY default
DROP EXTENSION postalytics_status CASCADE;
DROP SCHEMA crm CASCADE;
DROP FUNCTION piece;
DROP ROLE regress_postalytics_crm, regress_postalytics_other, regress_postalytics_mallory;
