/*
 * schemas.sql
 *		The tables of the two CRMs, as far as the example needs them, with their
 *		original names and types: res_partner of Odoo 20, and person of Twenty 2.47, in
 *		the schema of a workspace.  Each belongs to the role with which the CRM connects,
 *		which is no superuser and may read the pieces.
 */
CREATE ROLE odoo LOGIN;
CREATE ROLE twenty LOGIN;
SELECT postalytics.grant_read('odoo'), postalytics.grant_read('twenty');
GRANT CREATE ON SCHEMA public TO odoo;

CREATE TABLE public.res_partner (
    id serial PRIMARY KEY,
    company_id integer,
    parent_id integer,
    commercial_partner_id integer,
    create_date timestamp,
    write_date timestamp,
    name varchar,
    complete_name varchar,
    ref varchar,
    type varchar,
    street varchar,
    zip varchar,
    city varchar,
    email varchar,
    email_normalized varchar,
    phone varchar,
    properties jsonb,
    additional_identifiers jsonb,
    active boolean,
    is_company boolean,
    x_mail_status varchar,		-- a custom field
    x_mail_status_at timestamp,	-- a custom field
    CONSTRAINT res_partner_check_name CHECK ((type = 'contact' AND name IS NOT NULL) OR type <> 'contact')
);
ALTER TABLE public.res_partner OWNER TO odoo;
INSERT INTO public.res_partner (name, type, email, active)
VALUES ('Dolores Okafor-Lindqvist', 'contact', 'Dolores@harbourvale.example', true),
       ('Bao Nguyen', 'contact', 'bao@vale.example', true),
       ('Twice A', 'contact', 'twice@vale.example', true),
       ('Twice B', 'contact', 'twice@vale.example', true),
       ('Gone', 'contact', 'gone@vale.example', false);

CREATE SCHEMA workspace_1wgvd1injqtife6y4rvfbu3h5 AUTHORIZATION twenty;
CREATE TABLE workspace_1wgvd1injqtife6y4rvfbu3h5.person (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "createdAt" timestamptz NOT NULL DEFAULT now(),
    "updatedAt" timestamptz NOT NULL DEFAULT now(),
    "deletedAt" timestamptz,
    "nameFirstName" text,
    "nameLastName" text,
    "emailsPrimaryEmail" text UNIQUE,
    "emailsAdditionalEmails" jsonb,
    "jobTitle" text,
    "phonesPrimaryPhoneNumber" text,
    position double precision NOT NULL DEFAULT 0,
    "companyId" uuid,
    "mailStatus" text,				-- a custom field
    "mailStatusAt" timestamptz		-- a custom field
);
ALTER TABLE workspace_1wgvd1injqtife6y4rvfbu3h5.person OWNER TO twenty;
INSERT INTO workspace_1wgvd1injqtife6y4rvfbu3h5.person (id, "nameFirstName", "emailsPrimaryEmail", "deletedAt")
VALUES ('20931000-0000-4000-8000-000000000001', 'Dolores', 'dolores@harbourvale.example', NULL),
       ('20931000-0000-4000-8000-000000000002', 'Bao', 'bao@vale.example', NULL),
       ('20931000-0000-4000-8000-000000000003', 'Gone', 'gone@vale.example', now());

SELECT postalytics.ingest('[
    {"mailId": 1, "eventDate": "2026-10-06", "eventType": 4, "to": {"firstName": "D", "email": "other@x.example"},
     "meta": {"campaignId": 77120, "campaignName": "Spring recall", "fields": {"odoo_id": "1", "twenty_id": "20931000-0000-4000-8000-000000000001"}}},
    {"mailId": 2, "eventDate": "2026-10-06", "eventType": 6, "to": {"firstName": "B", "email": "BAO@vale.example"}},
    {"mailId": 3, "eventDate": "2026-10-06", "eventType": 6, "to": {"firstName": "T", "email": "twice@vale.example"}},
    {"mailId": 4, "eventDate": "2026-10-06", "eventType": 3, "to": {"firstName": "G", "email": "gone@vale.example"}}]');
