/*
 * report.sql
 *		The reports, merged from those of the slots.
 *
 * A piece is in one slot, so numbers of pieces are added.  Medians and percentiles come
 * from day_counts, which has steps of a hundredth of a day.  The views belong to the
 * owner, who may read the foreign tables, and show only the accounts that the current
 * user may read.  journey and status_as_of need no merging, because the planner finds the
 * slot of their piece.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- The tables from which the foreign tables of reports inherit.
DO $$
DECLARE
    each name;
BEGIN
    FOR each IN
        SELECT d.relation
        FROM postalytics.distributed_relations() AS d
        WHERE d.parent LIKE 'slots\_%'
          AND d.relation <> 'campaigns'
    LOOP
        EXECUTE format('CREATE TABLE postalytics.%I (LIKE postalytics.%I)', 'slots_' || each, each);
        EXECUTE format('COMMENT ON TABLE postalytics.%I IS %L', 'slots_' || each, 'internal: ' || each || ' of all slots');
    END LOOP;
END
$$;

-- These tables have no policies, so that only the owner, and views of the owner, can read
-- them, even after GRANT ... ON ALL TABLES.
DO $$
DECLARE
    each name;
BEGIN
    FOR each IN SELECT d.parent FROM postalytics.distributed_relations() AS d WHERE d.parent LIKE 'slots\_%' LOOP
        EXECUTE format('ALTER TABLE postalytics.%I ENABLE ROW LEVEL SECURITY', each);
    END LOOP;
END
$$;

-- Interpolates between the middles of the steps, as percentile_cont does between values.
CREATE FUNCTION postalytics.percentile_of_steps(fraction double precision, hundredths integer[], pieces bigint[])
RETURNS numeric
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH step AS (
        SELECT s.hundredths, sum(s.pieces) OVER (ORDER BY s.hundredths) AS until
        FROM unnest(percentile_of_steps.hundredths, percentile_of_steps.pieces) AS s (hundredths, pieces)
    ), rank AS (
        SELECT (fraction * (max(s.until) - 1))::numeric AS place
        FROM step AS s
    ), ends AS (
        SELECT r.place - floor(r.place) AS part,
               (SELECT min(s.hundredths) FROM step AS s WHERE s.until > floor(r.place)) AS lower,
               (SELECT min(s.hundredths) FROM step AS s WHERE s.until > ceil(r.place)) AS upper
        FROM rank AS r
    )
    SELECT (e.lower + e.part * (e.upper - e.lower) + 0.5) / 100
    FROM ends AS e
$$;
COMMENT ON FUNCTION postalytics.percentile_of_steps(double precision, integer[], bigint[]) IS
    'internal: percentile, in days, of durations that were counted in hundredths of a day';

CREATE VIEW postalytics.slots_days
WITH (security_barrier = true) AS
SELECT d.account,
       d.campaign_id,
       d.measure,
       array_agg(d.hundredths) AS hundredths,
       array_agg(d.pieces) AS pieces
FROM postalytics.slots_day_counts AS d
WHERE postalytics.may_see(d.account, (SELECT postalytics.reads_all()), (SELECT postalytics.readable_accounts()))
GROUP BY d.account, d.campaign_id, d.measure;
COMMENT ON VIEW postalytics.slots_days IS
    'internal: day_counts of all slots, as arguments of percentile_of_steps';

CREATE OR REPLACE VIEW postalytics.campaign_funnel
WITH (security_invoker = false, security_barrier = true) AS
SELECT f.account,
       f.campaign_id,
       c.name AS campaign_name,
       f.pieces,
       f.mail_piece_created,
       f.addressed,
       f.printed,
       f.mailed,
       f.in_transit,
       f.in_local_area,
       f.processed_for_delivery,
       f.re_routed,
       f.returned_to_sender,
       f.purl_opened,
       f.purl_completed,
       f.responded,
       f.failed,
       postalytics.rate(f.mailed, f.pieces) AS mailed_rate,
       postalytics.rate(f.in_transit, f.tracked) AS in_transit_rate,
       postalytics.rate(f.in_local_area, f.tracked) AS in_local_area_rate,
       postalytics.rate(f.processed_for_delivery, f.tracked) AS processed_for_delivery_rate,
       postalytics.rate(f.re_routed, f.tracked) AS re_routed_rate,
       postalytics.rate(f.returned_to_sender, f.tracked) AS returned_to_sender_rate,
       postalytics.rate(f.purl_opened, f.sent) AS purl_opened_rate,
       postalytics.rate(f.purl_completed, f.sent) AS purl_completed_rate,
       postalytics.rate(f.responded, f.sent) AS responded_rate,
       f.at_mail_piece_created,
       f.at_addressed,
       f.at_printed,
       f.at_mailed,
       f.at_in_transit,
       f.at_in_local_area,
       f.at_processed_for_delivery,
       f.at_re_routed,
       f.at_returned_to_sender,
       f.first_mailed_at,
       f.last_mailed_at,
       f.last_event_at,
       round(postalytics.percentile_of_steps(0.5, d.hundredths, d.pieces), 1) AS median_days,
       round(postalytics.percentile_of_steps(0.9, d.hundredths, d.pieces), 1) AS p90_days,
       f.sent,
       f.tracked
FROM (
    SELECT s.account,
           s.campaign_id,
           sum(s.pieces)::bigint AS pieces,
           sum(s.mail_piece_created)::bigint AS mail_piece_created,
           sum(s.addressed)::bigint AS addressed,
           sum(s.printed)::bigint AS printed,
           sum(s.mailed)::bigint AS mailed,
           sum(s.in_transit)::bigint AS in_transit,
           sum(s.in_local_area)::bigint AS in_local_area,
           sum(s.processed_for_delivery)::bigint AS processed_for_delivery,
           sum(s.re_routed)::bigint AS re_routed,
           sum(s.returned_to_sender)::bigint AS returned_to_sender,
           sum(s.purl_opened)::bigint AS purl_opened,
           sum(s.purl_completed)::bigint AS purl_completed,
           sum(s.responded)::bigint AS responded,
           sum(s.failed)::bigint AS failed,
           sum(s.at_mail_piece_created)::bigint AS at_mail_piece_created,
           sum(s.at_addressed)::bigint AS at_addressed,
           sum(s.at_printed)::bigint AS at_printed,
           sum(s.at_mailed)::bigint AS at_mailed,
           sum(s.at_in_transit)::bigint AS at_in_transit,
           sum(s.at_in_local_area)::bigint AS at_in_local_area,
           sum(s.at_processed_for_delivery)::bigint AS at_processed_for_delivery,
           sum(s.at_re_routed)::bigint AS at_re_routed,
           sum(s.at_returned_to_sender)::bigint AS at_returned_to_sender,
           min(s.first_mailed_at) AS first_mailed_at,
           max(s.last_mailed_at) AS last_mailed_at,
           max(s.last_event_at) AS last_event_at,
           sum(s.sent)::bigint AS sent,
           sum(s.tracked)::bigint AS tracked
    FROM postalytics.slots_campaign_funnel AS s
    GROUP BY s.account, s.campaign_id
) AS f
LEFT JOIN postalytics.campaigns AS c ON (c.campaign_id, c.account) = (f.campaign_id, f.account)
LEFT JOIN postalytics.slots_days AS d ON (d.measure, d.account, COALESCE(d.campaign_id, '')) = ('delivery', f.account, COALESCE(f.campaign_id, ''))
WHERE postalytics.may_see(f.account, (SELECT postalytics.reads_all()), (SELECT postalytics.readable_accounts()));

CREATE OR REPLACE VIEW postalytics.campaign_funnel_by_country
WITH (security_invoker = false, security_barrier = true) AS
SELECT f.account,
       f.campaign_id,
       f.country,
       f.pieces,
       f.mailed,
       f.in_transit,
       f.in_local_area,
       f.processed_for_delivery,
       f.re_routed,
       f.returned_to_sender,
       f.responded,
       postalytics.rate(f.mailed, f.pieces) AS mailed_rate,
       postalytics.rate(f.in_transit, f.tracked) AS in_transit_rate,
       postalytics.rate(f.in_local_area, f.tracked) AS in_local_area_rate,
       postalytics.rate(f.processed_for_delivery, f.tracked) AS processed_for_delivery_rate,
       postalytics.rate(f.re_routed, f.tracked) AS re_routed_rate,
       postalytics.rate(f.returned_to_sender, f.tracked) AS returned_to_sender_rate,
       postalytics.rate(f.responded, f.sent) AS responded_rate,
       f.sent,
       f.tracked
FROM (
    SELECT s.account,
           s.campaign_id,
           s.country,
           sum(s.pieces)::bigint AS pieces,
           sum(s.mailed)::bigint AS mailed,
           sum(s.in_transit)::bigint AS in_transit,
           sum(s.in_local_area)::bigint AS in_local_area,
           sum(s.processed_for_delivery)::bigint AS processed_for_delivery,
           sum(s.re_routed)::bigint AS re_routed,
           sum(s.returned_to_sender)::bigint AS returned_to_sender,
           sum(s.responded)::bigint AS responded,
           sum(s.sent)::bigint AS sent,
           sum(s.tracked)::bigint AS tracked
    FROM postalytics.slots_campaign_funnel_by_country AS s
    GROUP BY s.account, s.campaign_id, s.country
) AS f
WHERE postalytics.may_see(f.account, (SELECT postalytics.reads_all()), (SELECT postalytics.readable_accounts()));

CREATE OR REPLACE VIEW postalytics.campaign_responses
WITH (security_invoker = false, security_barrier = true) AS
SELECT r.account,
       r.campaign_id,
       c.name AS campaign_name,
       r.mailed,
       r.visitors,
       r.visits,
       r.completers,
       r.completions,
       r.not_completed,
       postalytics.rate(r.visitors, r.sent) AS visitors_rate,
       postalytics.rate(r.completers, r.visitors) AS completers_rate,
       round(postalytics.percentile_of_steps(0.5, d.hundredths, d.pieces), 1) AS median_days_to_visit,
       r.sent
FROM (
    SELECT s.account,
           s.campaign_id,
           sum(s.mailed)::bigint AS mailed,
           sum(s.visitors)::bigint AS visitors,
           sum(s.visits)::bigint AS visits,
           sum(s.completers)::bigint AS completers,
           sum(s.completions)::bigint AS completions,
           sum(s.not_completed)::bigint AS not_completed,
           sum(s.sent)::bigint AS sent
    FROM postalytics.slots_campaign_responses AS s
    GROUP BY s.account, s.campaign_id
) AS r
LEFT JOIN postalytics.campaigns AS c ON (c.campaign_id, c.account) = (r.campaign_id, r.account)
LEFT JOIN postalytics.slots_days AS d ON (d.measure, d.account, COALESCE(d.campaign_id, '')) = ('visit', r.account, COALESCE(r.campaign_id, ''))
WHERE postalytics.may_see(r.account, (SELECT postalytics.reads_all()), (SELECT postalytics.readable_accounts()));

-- ---- reports with arguments ----

CREATE FUNCTION postalytics.slots_responses_by_day(time_zone text)
RETURNS SETOF postalytics.responses_by_day
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    TARGET postalytics.responses_by_day_in;
$$;
COMMENT ON FUNCTION postalytics.slots_responses_by_day(text) IS
    'internal: responses_by_day of all slots';

CREATE FUNCTION postalytics.read_responses_by_day(time_zone text)
RETURNS SETOF postalytics.responses_by_day
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_read_slots';
COMMENT ON FUNCTION postalytics.read_responses_by_day(text) IS
    'internal: responses_by_day of all slots, for the accounts that the current user may read';

CREATE OR REPLACE VIEW postalytics.responses_by_day
WITH (security_invoker = true) AS
SELECT r.account,
       r.campaign_id,
       r.day,
       sum(r.visits)::bigint AS visits,
       sum(r.visitors)::bigint AS visitors,
       sum(r.completions)::bigint AS completions,
       sum(r.completers)::bigint AS completers
FROM postalytics.read_responses_by_day(current_setting('timezone')) AS r
GROUP BY r.account, r.campaign_id, r.day;

CREATE FUNCTION postalytics.slots_funnel(campaign_id text, as_of timestamptz, account text)
RETURNS SETOF postalytics.funnel_row
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    TARGET postalytics.funnel;
$$;
COMMENT ON FUNCTION postalytics.slots_funnel(text, timestamptz, text) IS
    'internal: funnel of all slots';

CREATE FUNCTION postalytics.read_funnel(campaign_id text, as_of timestamptz, account text)
RETURNS SETOF postalytics.funnel_row
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_read_slots';
COMMENT ON FUNCTION postalytics.read_funnel(text, timestamptz, text) IS
    'internal: funnel of all slots, for the accounts that the current user may read';

CREATE OR REPLACE FUNCTION postalytics.funnel(campaign_id text, as_of timestamptz DEFAULT 'infinity', account text DEFAULT NULL)
RETURNS SETOF postalytics.funnel_row
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT f.status, f.label, f.reached, f."at", postalytics.rate(f.reached, f.pieces), postalytics.bar(f.reached, f.pieces), f.account, f.pieces
FROM (
    SELECT r.account,
           r.status,
           r.label,
           sum(r.reached)::bigint AS reached,
           sum(r."at")::bigint AS "at",
           sum(r.pieces)::bigint AS pieces
    FROM postalytics.read_funnel(funnel.campaign_id, funnel.as_of, funnel.account) AS r
    GROUP BY r.account, r.status, r.label
) AS f
ORDER BY f.account, f.status
$$;

CREATE FUNCTION postalytics.slots_stay_counts(of_campaign text, of_account text)
RETURNS TABLE (account text, campaign_id text, status postalytics.mail_status, hundredths integer, pieces bigint)
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    TARGET postalytics.stay_counts;
$$;
COMMENT ON FUNCTION postalytics.slots_stay_counts(text, text) IS
    'internal: stay_counts of all slots';

CREATE FUNCTION postalytics.slots_stuck_pieces_by(older_than interval, campaign text, younger_than interval, account text, usual jsonb)
RETURNS SETOF postalytics.stuck_piece
LANGUAGE plproxy
AS $$
    CLUSTER 'postalytics';
    RUN ON ALL;
    TARGET postalytics.stuck_pieces_by;
$$;
COMMENT ON FUNCTION postalytics.slots_stuck_pieces_by(interval, text, interval, text, jsonb) IS
    'internal: stuck_pieces_by of all slots';

-- The map has the keys and the values that stuck_pieces_by (piece_report.sql) computes on a
-- slot.  The fraction and the minimum number of stays are the same as there.
CREATE FUNCTION postalytics.usual_stays(of_campaign text, of_account text)
RETURNS jsonb
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT COALESCE(jsonb_object_agg(ROW(u.account, u.campaign_id, u.status)::text,
                                     postalytics.percentile_of_steps(0.95, u.hundredths, u.pieces) * '1 day'::interval), '{}')
    FROM (
        SELECT c.account, c.campaign_id, c.status, array_agg(c.hundredths) AS hundredths, array_agg(c.pieces) AS pieces
        FROM postalytics.slots_stay_counts(of_campaign, of_account) AS c
        GROUP BY c.account, c.campaign_id, c.status
        HAVING sum(c.pieces) >= 20
    ) AS u
$$;
COMMENT ON FUNCTION postalytics.usual_stays(text, text) IS
    'internal: the usual time of all slots by account, campaign and status';

-- campaign can also be a drop, whose pieces can be in any campaign.  Then the stays of all
-- campaigns are read.
CREATE FUNCTION postalytics.slots_stuck_pieces(older_than interval, campaign text, younger_than interval, account text)
RETURNS SETOF postalytics.stuck_piece
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.*
    FROM postalytics.slots_stuck_pieces_by(
        older_than, campaign, younger_than, slots_stuck_pieces.account,
        CASE
            WHEN older_than IS NULL THEN
                postalytics.usual_stays((SELECT min(c.campaign_id) FROM postalytics.campaigns AS c WHERE c.campaign_id = campaign),
                                        slots_stuck_pieces.account)
        END) AS s
    ORDER BY s.status_at
$$;
COMMENT ON FUNCTION postalytics.slots_stuck_pieces(interval, text, interval, text) IS
    'internal: stuck_pieces of all slots';

CREATE FUNCTION postalytics.read_stuck_pieces(older_than interval, campaign text, younger_than interval, account text)
RETURNS SETOF postalytics.stuck_piece
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_read_slots';
COMMENT ON FUNCTION postalytics.read_stuck_pieces(interval, text, interval, text) IS
    'internal: stuck_pieces of all slots, for the accounts that the current user may read';

CREATE OR REPLACE FUNCTION postalytics.stuck_pieces(
    older_than interval DEFAULT NULL,
    campaign text DEFAULT NULL,
    younger_than interval DEFAULT '60 days',
    account text DEFAULT NULL)
RETURNS SETOF postalytics.stuck_piece
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT *
    FROM postalytics.read_stuck_pieces(older_than, campaign, younger_than, account)
$$;

-- ---- syncs ----

-- last_error is that of the slot where an attempt failed last.
CREATE OR REPLACE VIEW postalytics.sync_health
WITH (security_invoker = false, security_barrier = true) AS
SELECT s.name,
       s.enabled,
       COALESCE(h.waiting, 0) AS waiting,
       COALESCE(h.due, 0) AS due,
       h.oldest_due_at,
       COALESCE(h.leased, 0) AS leased,
       COALESCE(h.dead, 0) AS dead,
       COALESCE(h.done_last_hour, 0) AS done_last_hour,
       h.last_error[1] AS last_error,
       h.last_error_at,
       (SELECT jsonb_object_agg(r.reason, r.dead)
        FROM (SELECT j.key AS reason, sum(j.value::bigint) AS dead
              FROM postalytics.slots_sync_health AS n
              CROSS JOIN LATERAL jsonb_each_text(n.dead_by_reason) AS j
              WHERE n.name = s.name
              GROUP BY j.key) AS r) AS dead_by_reason,
       h.paused_until,
       CASE WHEN s.breaker IS NOT NULL THEN COALESCE(h.breaker_state, 'closed') END AS breaker_state,
       h.breaker_reason
FROM postalytics.syncs AS s
LEFT JOIN (
    SELECT n.name,
           sum(n.waiting)::bigint AS waiting,
           sum(n.due)::bigint AS due,
           min(n.oldest_due_at) AS oldest_due_at,
           sum(n.leased)::bigint AS leased,
           sum(n.dead)::bigint AS dead,
           sum(n.done_last_hour)::bigint AS done_last_hour,
           array_agg(n.last_error ORDER BY n.last_error_at DESC NULLS LAST) AS last_error,
           max(n.last_error_at) AS last_error_at,
           max(n.paused_until) AS paused_until,
           CASE
               WHEN bool_or(n.breaker_state = 'open') THEN 'open'
               WHEN bool_or(n.breaker_state = 'half-open') THEN 'half-open'
           END AS breaker_state,
           max(n.breaker_reason) AS breaker_reason
    FROM postalytics.slots_sync_health AS n
    GROUP BY n.name
) AS h ON h.name = s.name
WHERE (SELECT postalytics.reads_all())
   OR (SELECT postalytics.is_manager())
   OR s.accounts <@ (SELECT postalytics.readable_accounts())::text[];
