/*
 * schemas.sql
 *		The tables of the two CRMs, as far as the example needs them, with their
 *		original names and types: res_partner of Odoo 17, and person of Twenty, in
 *		the schema of a workspace.
 */
CREATE TABLE public.res_partner (
    id serial PRIMARY KEY,
    company_id integer,
    name varchar,
    display_name varchar,
    ref varchar,
    email varchar,
    email_normalized varchar,
    phone varchar,
    street varchar,
    city varchar,
    zip varchar,
    type varchar,
    active boolean DEFAULT true,
    is_company boolean,
    create_date timestamp,
    write_date timestamp
);
INSERT INTO public.res_partner (name, email, active)
VALUES ('Dolores Okafor-Lindqvist', 'Dolores@harbourvale.example', true),
       ('Bao Nguyen', 'bao@vale.example', true),
       ('Twice A', 'twice@vale.example', true),
       ('Twice B', 'twice@vale.example', true),
       ('Gone', 'gone@vale.example', false);

CREATE SCHEMA workspace_1wgvd1injqtife6y4rvfbu3h5;
CREATE TABLE workspace_1wgvd1injqtife6y4rvfbu3h5.person (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "nameFirstName" text NOT NULL DEFAULT '',
    "nameLastName" text NOT NULL DEFAULT '',
    "emailsPrimaryEmail" text NOT NULL DEFAULT '',
    "emailsAdditionalEmails" jsonb,
    "jobTitle" text,
    city text,
    "companyId" uuid,
    "createdAt" timestamptz NOT NULL DEFAULT now(),
    "updatedAt" timestamptz NOT NULL DEFAULT now(),
    "deletedAt" timestamptz
);
INSERT INTO workspace_1wgvd1injqtife6y4rvfbu3h5.person (id, "nameFirstName", "emailsPrimaryEmail", "deletedAt")
VALUES ('20931000-0000-4000-8000-000000000001', 'Dolores', 'dolores@harbourvale.example', NULL),
       ('20931000-0000-4000-8000-000000000002', 'Bao', 'bao@vale.example', NULL),
       ('20931000-0000-4000-8000-000000000003', 'Gone', 'bao@vale.example', now());

SELECT postalytics.ingest('[
    {"mailId": 1, "eventDate": "2026-10-06", "eventType": 4, "to": {"firstName": "D", "email": "other@x.example"},
     "meta": {"campaignId": 77120, "campaignName": "Spring recall", "fields": {"odoo_id": "1", "twenty_id": "20931000-0000-4000-8000-000000000001"}}},
    {"mailId": 2, "eventDate": "2026-10-06", "eventType": 6, "to": {"firstName": "B", "email": "BAO@vale.example"}},
    {"mailId": 3, "eventDate": "2026-10-06", "eventType": 6, "to": {"firstName": "T", "email": "twice@vale.example"}},
    {"mailId": 4, "eventDate": "2026-10-06", "eventType": 3, "to": {"firstName": "G", "email": "gone@vale.example"}}]');
