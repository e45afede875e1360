/*
 * pure.sql
 *		The rival: the work of ingest written in SQL as well as we can, with saved
 *		plans.  One statement reads the events once, inserts them, merges the new
 *		events into pieces and campaigns, creates deliveries, and notifies their
 *		syncs.  It supports one form of the feed and rejects no events.
 *
 *		pure() in lib edits this file before it is run.  It replaces @json@ with the
 *		type that is read, json or jsonb.  To read with JSON_TABLE instead, it
 *		deletes the lines marked "-- records" and uses the lines after "--table:".
 */
DROP SCHEMA IF EXISTS pure CASCADE;
CREATE SCHEMA pure;

CREATE SEQUENCE pure.event_id_seq;
CREATE TABLE pure.events (
    event_id bigint NOT NULL DEFAULT nextval('pure.event_id_seq'),
    piece_id text COLLATE "C" NOT NULL,
    status postalytics.mail_status NOT NULL,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    account text,
    campaign_id text,
    payload @json@
)
PARTITION BY RANGE (occurred_at);

DO $$
BEGIN
    FOR month IN 0..11 LOOP
        EXECUTE format('CREATE TABLE pure.events_%s PARTITION OF pure.events (PRIMARY KEY (piece_id, status, occurred_at))
                        FOR VALUES FROM (%L) TO (%L)', month,
                       timestamptz '2026-01-01 00:00+00' + make_interval(months => month),
                       timestamptz '2026-01-01 00:00+00' + make_interval(months => month + 1));
    END LOOP;
END
$$;

-- Returns the current status from the time of ReturnedToSender, the latest time of
-- ReRouted, and the latest times of the other statuses, earliest status first.
CREATE FUNCTION pure.status(returned timestamptz, rerouted timestamptz, last timestamptz[])
RETURNS postalytics.mail_status
LANGUAGE sql
IMMUTABLE
RETURN CASE
    WHEN returned IS NOT NULL THEN 'ReturnedToSender'::postalytics.mail_status
    WHEN last[7] >= COALESCE(rerouted, last[7]) THEN 'ProcessedForDelivery'::postalytics.mail_status
    WHEN last[6] >= COALESCE(rerouted, last[6]) THEN 'InLocalArea'::postalytics.mail_status
    WHEN last[5] >= COALESCE(rerouted, last[5]) THEN 'InTransit'::postalytics.mail_status
    WHEN last[4] >= COALESCE(rerouted, last[4]) THEN 'Mailed'::postalytics.mail_status
    WHEN last[3] >= COALESCE(rerouted, last[3]) THEN 'Printed'::postalytics.mail_status
    WHEN last[2] >= COALESCE(rerouted, last[2]) THEN 'Addressed'::postalytics.mail_status
    WHEN last[1] >= COALESCE(rerouted, last[1]) THEN 'MailPieceCreated'::postalytics.mail_status
    WHEN rerouted IS NOT NULL THEN 'ReRouted'::postalytics.mail_status
END;

CREATE TABLE pure.pieces (
    piece_id text COLLATE "C" NOT NULL PRIMARY KEY,
    account text,
    campaign_id text,
    contact_id text,
    country text,
    first_name text,
    last_name text,
    company text,
    email text,
    zip text,
    fields jsonb,
    mail_piece_created_at timestamptz,
    addressed_at timestamptz,
    printed_at timestamptz,
    mailed_at timestamptz,
    in_transit_at timestamptz,
    in_local_area_at timestamptz,
    processed_for_delivery_at timestamptz,
    re_routed_at timestamptz,
    returned_to_sender_at timestamptz,
    first_opened_at timestamptz,
    first_completed_at timestamptz,
    last_1 timestamptz,
    last_2 timestamptz,
    last_3 timestamptz,
    last_4 timestamptz,
    last_5 timestamptz,
    last_6 timestamptz,
    last_7 timestamptz,
    last_8 timestamptz,
    opens integer NOT NULL,
    completions integer NOT NULL,
    last_url text,
    expected_delivery_at timestamptz,
    first_event_at timestamptz NOT NULL,
    last_event_at timestamptz NOT NULL,
    status postalytics.mail_status
        GENERATED ALWAYS AS (pure.status(returned_to_sender_at, last_8,
            ARRAY[last_1, last_2, last_3, last_4, last_5, last_6, last_7])) STORED,
    response postalytics.mail_status
        GENERATED ALWAYS AS (CASE
                                 WHEN completions > 0 THEN 'pURLCompleted'::postalytics.mail_status
                                 WHEN opens > 0 THEN 'pURLOpened'::postalytics.mail_status
                             END) STORED
)
WITH (fillfactor = 85);
CREATE INDEX ON pure.pieces (campaign_id);

CREATE TABLE pure.campaigns (
    campaign_id text PRIMARY KEY,
    account text,
    name text
);

CREATE TABLE pure.syncs (
    name text PRIMARY KEY,
    statuses postalytics.mail_status[] NOT NULL
);
CREATE TABLE pure.deliveries (
    delivery_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync text COLLATE "C" NOT NULL,
    piece_id text COLLATE "C" NOT NULL,
    status postalytics.mail_status NOT NULL,
    occurred_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'waiting',
    attempt integer NOT NULL DEFAULT 0,
    lease_until timestamptz
)
WITH (fillfactor = 70);
CREATE INDEX ON pure.deliveries (sync, due_at);
CREATE INDEX ON pure.deliveries (piece_id, sync, occurred_at);

CREATE FUNCTION pure.ingest(document @json@)
RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    inserted bigint;
BEGIN
WITH read AS MATERIALIZED (
    SELECT "mailId" AS piece_id,
           CASE "eventType"
               WHEN 0 THEN 'MailPieceCreated'::postalytics.mail_status
               WHEN 9 THEN 'Addressed'::postalytics.mail_status
               WHEN 10 THEN 'Printed'::postalytics.mail_status
               WHEN 11 THEN 'Mailed'::postalytics.mail_status
               WHEN 4 THEN 'InTransit'::postalytics.mail_status
               WHEN 5 THEN 'InLocalArea'::postalytics.mail_status
               WHEN 6 THEN 'ProcessedForDelivery'::postalytics.mail_status
               WHEN 2 THEN 'ReRouted'::postalytics.mail_status
               WHEN 3 THEN 'ReturnedToSender'::postalytics.mail_status
               WHEN 7 THEN 'pURLOpened'::postalytics.mail_status
               WHEN 8 THEN 'pURLCompleted'::postalytics.mail_status
           END AS status,
           "eventDate" AT TIME ZONE 'UTC' AS occurred_at,
           "expectedDeliveryDate" AT TIME ZONE 'UTC' AS expected,
           "to" AS recipient,
           "accountId" AS account,
           "campaignId" AS campaign_id,
           "campaignName" AS campaign_name,
           url,
           fields,
           payload
    FROM @json@_array_elements(document) AS j (payload), -- records
         @json@_to_record(j.payload) AS e ("mailId" text, "eventType" int, "eventDate" timestamp, "expectedDeliveryDate" timestamp, "to" @json@, meta @json@), -- records
         @json@_to_record(e.meta) AS m ("accountId" text, "campaignId" text, "campaignName" text, url text, fields jsonb) -- records
--table:     FROM JSON_TABLE(document, '$[*]' COLUMNS (
--table:              payload @json@ FORMAT JSON PATH '$',
--table:              "mailId" text, "eventType" int, "eventDate" timestamp, "expectedDeliveryDate" timestamp,
--table:              "to" @json@ FORMAT JSON PATH '$.to',
--table:              "accountId" text PATH '$.meta.accountId',
--table:              "campaignId" text PATH '$.meta.campaignId',
--table:              "campaignName" text PATH '$.meta.campaignName',
--table:              url text PATH '$.meta.url',
--table:              fields jsonb FORMAT JSON PATH '$.meta.fields'))
    ORDER BY 1
),
new AS (
    INSERT INTO pure.events (piece_id, status, occurred_at, account, campaign_id, payload)
    SELECT piece_id, status, occurred_at, account, campaign_id, payload
    FROM read
    ON CONFLICT DO NOTHING
    RETURNING piece_id, status, occurred_at
),
latest AS (
    SELECT DISTINCT ON (r.piece_id) r.*
    FROM read AS r
    ORDER BY r.piece_id, r.occurred_at DESC
),
folded AS (
    INSERT INTO pure.pieces AS p
    SELECT l.piece_id, l.account, l.campaign_id, t.id, t.country, t."firstName", t."lastName", t.company, t.email, t.zip, l.fields,
           f.f1, f.f2, f.f3, f.f4, f.f5, f.f6, f.f7, f.f8, f.f9, f.f10, f.f11,
           f.l1, f.l2, f.l3, f.l4, f.l5, f.l6, f.l7, f.l8,
           f.opens, f.completions,
           CASE WHEN l.status >= 'pURLOpened' THEN l.url END,
           l.expected, f.first_event_at, f.last_event_at
    FROM (SELECT piece_id,
                 min(occurred_at) FILTER (WHERE status = 'MailPieceCreated') AS f1,
                 min(occurred_at) FILTER (WHERE status = 'Addressed') AS f2,
                 min(occurred_at) FILTER (WHERE status = 'Printed') AS f3,
                 min(occurred_at) FILTER (WHERE status = 'Mailed') AS f4,
                 min(occurred_at) FILTER (WHERE status = 'InTransit') AS f5,
                 min(occurred_at) FILTER (WHERE status = 'InLocalArea') AS f6,
                 min(occurred_at) FILTER (WHERE status = 'ProcessedForDelivery') AS f7,
                 min(occurred_at) FILTER (WHERE status = 'ReRouted') AS f8,
                 min(occurred_at) FILTER (WHERE status = 'ReturnedToSender') AS f9,
                 min(occurred_at) FILTER (WHERE status = 'pURLOpened') AS f10,
                 min(occurred_at) FILTER (WHERE status = 'pURLCompleted') AS f11,
                 max(occurred_at) FILTER (WHERE status = 'MailPieceCreated') AS l1,
                 max(occurred_at) FILTER (WHERE status = 'Addressed') AS l2,
                 max(occurred_at) FILTER (WHERE status = 'Printed') AS l3,
                 max(occurred_at) FILTER (WHERE status = 'Mailed') AS l4,
                 max(occurred_at) FILTER (WHERE status = 'InTransit') AS l5,
                 max(occurred_at) FILTER (WHERE status = 'InLocalArea') AS l6,
                 max(occurred_at) FILTER (WHERE status = 'ProcessedForDelivery') AS l7,
                 max(occurred_at) FILTER (WHERE status = 'ReRouted') AS l8,
                 count(*) FILTER (WHERE status = 'pURLOpened') AS opens,
                 count(*) FILTER (WHERE status = 'pURLCompleted') AS completions,
                 min(occurred_at) AS first_event_at,
                 max(occurred_at) AS last_event_at
          FROM new
          GROUP BY piece_id) AS f
    JOIN latest AS l USING (piece_id),
         @json@_to_record(l.recipient) AS t (id text, country text, "firstName" text, "lastName" text, company text, email text, zip text)
    ORDER BY l.piece_id
    ON CONFLICT (piece_id) DO UPDATE
    SET account = CASE WHEN excluded.last_event_at > p.last_event_at THEN excluded.account ELSE p.account END,
        campaign_id = CASE WHEN excluded.last_event_at > p.last_event_at THEN excluded.campaign_id ELSE p.campaign_id END,
        contact_id = CASE WHEN excluded.last_event_at > p.last_event_at THEN excluded.contact_id ELSE p.contact_id END,
        country = CASE WHEN excluded.last_event_at > p.last_event_at THEN excluded.country ELSE p.country END,
        first_name = CASE WHEN excluded.last_event_at > p.last_event_at THEN excluded.first_name ELSE p.first_name END,
        last_name = CASE WHEN excluded.last_event_at > p.last_event_at THEN excluded.last_name ELSE p.last_name END,
        company = CASE WHEN excluded.last_event_at > p.last_event_at THEN excluded.company ELSE p.company END,
        email = CASE WHEN excluded.last_event_at > p.last_event_at THEN excluded.email ELSE p.email END,
        zip = CASE WHEN excluded.last_event_at > p.last_event_at THEN excluded.zip ELSE p.zip END,
        fields = CASE WHEN excluded.last_event_at > p.last_event_at THEN excluded.fields ELSE p.fields END,
        mail_piece_created_at = LEAST(p.mail_piece_created_at, excluded.mail_piece_created_at),
        addressed_at = LEAST(p.addressed_at, excluded.addressed_at),
        printed_at = LEAST(p.printed_at, excluded.printed_at),
        mailed_at = LEAST(p.mailed_at, excluded.mailed_at),
        in_transit_at = LEAST(p.in_transit_at, excluded.in_transit_at),
        in_local_area_at = LEAST(p.in_local_area_at, excluded.in_local_area_at),
        processed_for_delivery_at = LEAST(p.processed_for_delivery_at, excluded.processed_for_delivery_at),
        re_routed_at = LEAST(p.re_routed_at, excluded.re_routed_at),
        returned_to_sender_at = LEAST(p.returned_to_sender_at, excluded.returned_to_sender_at),
        first_opened_at = LEAST(p.first_opened_at, excluded.first_opened_at),
        first_completed_at = LEAST(p.first_completed_at, excluded.first_completed_at),
        last_1 = GREATEST(p.last_1, excluded.last_1),
        last_2 = GREATEST(p.last_2, excluded.last_2),
        last_3 = GREATEST(p.last_3, excluded.last_3),
        last_4 = GREATEST(p.last_4, excluded.last_4),
        last_5 = GREATEST(p.last_5, excluded.last_5),
        last_6 = GREATEST(p.last_6, excluded.last_6),
        last_7 = GREATEST(p.last_7, excluded.last_7),
        last_8 = GREATEST(p.last_8, excluded.last_8),
        opens = p.opens + excluded.opens,
        completions = p.completions + excluded.completions,
        last_url = CASE WHEN excluded.last_event_at > p.last_event_at THEN COALESCE(excluded.last_url, p.last_url) ELSE COALESCE(p.last_url, excluded.last_url) END,
        expected_delivery_at = CASE WHEN excluded.last_event_at > p.last_event_at THEN excluded.expected_delivery_at ELSE p.expected_delivery_at END,
        first_event_at = LEAST(p.first_event_at, excluded.first_event_at),
        last_event_at = GREATEST(p.last_event_at, excluded.last_event_at)
),
named AS (
    INSERT INTO pure.campaigns
    SELECT DISTINCT r.campaign_id, r.account, r.campaign_name
    FROM read AS r
    WHERE NOT EXISTS (SELECT FROM pure.campaigns AS c WHERE c.campaign_id = r.campaign_id)
    ON CONFLICT DO NOTHING
),
owed AS (
    INSERT INTO pure.deliveries (sync, piece_id, status, occurred_at, due_at)
    SELECT s.name, n.piece_id, n.status, n.occurred_at, n.occurred_at
    FROM new AS n
    JOIN pure.syncs AS s ON n.status = ANY (s.statuses)
    RETURNING sync
),
told AS MATERIALIZED (
    SELECT count(*), count(pg_notify('pure', json_build_object('sync', sync, 'count', count)::text))
    FROM (SELECT sync, count(*) FROM owed GROUP BY sync) AS o
)
SELECT count(*)
INTO inserted
FROM new, told
GROUP BY ();
RETURN inserted;
END
$$;
