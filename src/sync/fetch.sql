/*
 * fetch.sql
 *		fetch and next_due, the functions with which workers get due deliveries.
 *
 * The settings of these functions make their queries use the indexes, regardless of the
 * statistics: a queue may be empty when it is analyzed, and full when it is queried.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TYPE postalytics.delivery AS (
    delivery_id bigint,
    attempt integer,
    is_test boolean,
    status postalytics.mail_status,
    label text,
    occurred_at timestamptz,
    due_at timestamptz,
    piece_id text,
    account text,
    campaign_id text,
    campaign_name text,
    contact_id text,
    first_name text,
    last_name text,
    company text,
    email text,
    country text,
    fields jsonb,
    payload json
);
COMMENT ON TYPE postalytics.delivery IS
    'row that fetch returns: a delivery with all the data that a call to a CRM needs';
COMMENT ON COLUMN postalytics.delivery.delivery_id IS 'id of the delivery, stable over all attempts: the key of idempotent calls';
COMMENT ON COLUMN postalytics.delivery.attempt IS 'number of this attempt';
COMMENT ON COLUMN postalytics.delivery.is_test IS 'true if test_sync made it';
COMMENT ON COLUMN postalytics.delivery.status IS 'status of the event; NULL for a production error';
COMMENT ON COLUMN postalytics.delivery.label IS 'display form of the status; Error or None for a production error';
COMMENT ON COLUMN postalytics.delivery.occurred_at IS 'time of the event';
COMMENT ON COLUMN postalytics.delivery.due_at IS 'when the delivery was due';
COMMENT ON COLUMN postalytics.delivery.piece_id IS 'piece of the event';
COMMENT ON COLUMN postalytics.delivery.account IS 'account of the event; empty if none was given';
COMMENT ON COLUMN postalytics.delivery.campaign_id IS 'campaign of the event, or of the piece';
COMMENT ON COLUMN postalytics.delivery.campaign_name IS 'name of the campaign; NULL if unknown';
COMMENT ON COLUMN postalytics.delivery.contact_id IS 'contact of the piece';
COMMENT ON COLUMN postalytics.delivery.first_name IS 'first name of the recipient';
COMMENT ON COLUMN postalytics.delivery.last_name IS 'last name of the recipient';
COMMENT ON COLUMN postalytics.delivery.company IS 'company of the recipient';
COMMENT ON COLUMN postalytics.delivery.email IS 'e-mail address of the recipient';
COMMENT ON COLUMN postalytics.delivery.country IS 'country of the recipient';
COMMENT ON COLUMN postalytics.delivery.fields IS 'the mailing list''s own fields of the piece';
COMMENT ON COLUMN postalytics.delivery.payload IS 'JSON of the event; NULL if it was not kept';

CREATE FUNCTION postalytics.fetch(
    sync text,
    batch integer DEFAULT 100,
    lease interval DEFAULT '1 minute',
    max_wait interval DEFAULT '0',
    ack bigint[] DEFAULT NULL)
RETURNS SETOF postalytics.delivery
LANGUAGE c
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS 'MODULE_PATHNAME', 'postalytics_fetch';
COMMENT ON FUNCTION postalytics.fetch(text, integer, interval, interval, bigint[]) IS
    'finish the deliveries in ack, then lease up to batch due deliveries to the caller; if there are none, wait for up to max_wait, unless ack names any';

CREATE FUNCTION postalytics.next_due(sync text)
RETURNS timestamptz
LANGUAGE c
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS 'MODULE_PATHNAME', 'postalytics_next_due';
COMMENT ON FUNCTION postalytics.next_due(text) IS
    'when a worker should fetch again unless it is notified before; NULL if nothing waits';
