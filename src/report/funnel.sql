/*
 * funnel.sql
 *		funnel: the state of a campaign at a time.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TYPE postalytics.funnel_row AS (
    status postalytics.mail_status,
    label text,
    reached bigint,
    "at" bigint,
    rate numeric,
    bar text,
    account text,
    pieces bigint
);
COMMENT ON TYPE postalytics.funnel_row IS
    'a status in a campaign''s funnel';
COMMENT ON COLUMN postalytics.funnel_row.status IS 'status';
COMMENT ON COLUMN postalytics.funnel_row.label IS 'display form of the status';
COMMENT ON COLUMN postalytics.funnel_row.reached IS 'pieces that had reached the status';
COMMENT ON COLUMN postalytics.funnel_row.at IS 'pieces that were at the status';
COMMENT ON COLUMN postalytics.funnel_row.rate IS 'reached as a share of all pieces of the campaign';
COMMENT ON COLUMN postalytics.funnel_row.bar IS 'rate as a bar';
COMMENT ON COLUMN postalytics.funnel_row.account IS 'account of the campaign; empty if none was given';
COMMENT ON COLUMN postalytics.funnel_row.pieces IS 'all pieces of the campaign that had an event, of which rate is a share';

-- Calls status_as_of only for pieces that have events before and after as_of.
CREATE FUNCTION postalytics.funnel(campaign_id text, as_of timestamptz DEFAULT 'infinity', account text DEFAULT NULL)
RETURNS SETOF postalytics.funnel_row
LANGUAGE sql
STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
WITH piece AS (
    SELECT p.*,
           CASE
               WHEN p.last_event_at <= as_of THEN p.status
               WHEN p.first_event_at <= as_of THEN postalytics.status_as_of(p.piece_id, as_of, p.account)
           END AS was_at
    FROM postalytics.pieces AS p
    WHERE (p.campaign_id = funnel.campaign_id OR p.drop_id = funnel.campaign_id)
      AND (funnel.account IS NULL OR p.account = funnel.account)
), counted AS (
    SELECT p.account,
           count(*) FILTER (WHERE p.first_event_at <= as_of) AS pieces,
           ARRAY[count(*) FILTER (WHERE p.mail_piece_created_at <= as_of),
                 count(*) FILTER (WHERE p.addressed_at <= as_of),
                 count(*) FILTER (WHERE p.printed_at <= as_of),
                 count(*) FILTER (WHERE p.mailed_at <= as_of),
                 count(*) FILTER (WHERE p.in_transit_at <= as_of),
                 count(*) FILTER (WHERE p.in_local_area_at <= as_of),
                 count(*) FILTER (WHERE p.processed_for_delivery_at <= as_of),
                 count(*) FILTER (WHERE p.re_routed_at <= as_of),
                 count(*) FILTER (WHERE p.returned_to_sender_at <= as_of),
                 count(*) FILTER (WHERE p.first_opened_at <= as_of),
                 count(*) FILTER (WHERE p.first_completed_at <= as_of)] AS reached
    FROM piece AS p
    GROUP BY p.account
), at AS (
    SELECT p.account, p.was_at AS status, count(*) AS pieces
    FROM piece AS p
    WHERE p.first_event_at <= as_of
    GROUP BY p.account, p.was_at
)
SELECT s.status, s.label, c.reached[s.place], COALESCE(a.pieces, 0),
       postalytics.rate(c.reached[s.place], c.pieces),
       postalytics.bar(c.reached[s.place], c.pieces),
       c.account,
       c.pieces
FROM (SELECT t.status, t.label, row_number() OVER (ORDER BY t.status) AS place FROM postalytics.statuses AS t) AS s
CROSS JOIN counted AS c
LEFT JOIN at AS a ON (a.status, a.account) = (s.status, c.account)
ORDER BY c.account, s.status
$$;
COMMENT ON FUNCTION postalytics.funnel(text, timestamptz, text) IS
    'state of a campaign at a time: for each status, how many pieces had reached it, their share of all pieces, and how many were at it; for one account, or each account that has the campaign';
