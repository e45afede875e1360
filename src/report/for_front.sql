/*
 * for_front.sql
 *		What the front of a cluster reads from its slots to merge their reports.
 *
 * Numbers of pieces are added, because a piece is in one slot only.  A median of medians
 * would be wrong, so a slot returns how many pieces took how long, in steps of a
 * hundredth of a day.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.hundredths_of_days(duration interval)
RETURNS integer
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.floor(extract(epoch FROM duration) OPERATOR(pg_catalog./) 864)::integer;
COMMENT ON FUNCTION postalytics.hundredths_of_days(interval) IS
    'internal: a duration in whole hundredths of a day';

CREATE VIEW postalytics.day_counts
WITH (security_invoker = true) AS
SELECT p.account,
       p.campaign_id,
       d.measure,
       postalytics.hundredths_of_days(d.duration) AS hundredths,
       count(*) AS pieces
FROM postalytics.pieces AS p
CROSS JOIN LATERAL (VALUES ('delivery', p.processed_for_delivery_at - p.mailed_at),
                           ('visit', LEAST(p.first_opened_at, p.first_completed_at) - p.mailed_at)) AS d (measure, duration)
WHERE d.duration >= '0'
GROUP BY p.account, p.campaign_id, d.measure, postalytics.hundredths_of_days(d.duration);
COMMENT ON VIEW postalytics.day_counts IS
    'internal: for each campaign of an account, how many pieces took how long';
COMMENT ON COLUMN postalytics.day_counts.account IS 'account of the campaign';
COMMENT ON COLUMN postalytics.day_counts.campaign_id IS 'campaign; NULL for pieces without one';
COMMENT ON COLUMN postalytics.day_counts.measure IS 'delivery: from Mailed to ProcessedForDelivery; visit: from Mailed to the first visit';
COMMENT ON COLUMN postalytics.day_counts.hundredths IS 'whole hundredths of a day';
COMMENT ON COLUMN postalytics.day_counts.pieces IS 'number of pieces';

-- stuck_pieces computes the usual time at a status from these numbers.
CREATE FUNCTION postalytics.stay_counts(of_campaign text, of_account text)
RETURNS TABLE (account text, campaign_id text, status postalytics.mail_status, hundredths integer, pieces bigint)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.account, p.campaign_id, t.status, postalytics.hundredths_of_days(s.left_at - s.reached_at), count(*)
    FROM postalytics.pieces AS p
    CROSS JOIN unnest('{MailPieceCreated,Addressed,Printed,Mailed,InTransit,InLocalArea,ReRouted}'::postalytics.mail_status[]) AS t (status)
    CROSS JOIN LATERAL (
        SELECT postalytics.reached_at(p, t.status) AS reached_at,
               postalytics.left_at(p, t.status) AS left_at
    ) AS s
    WHERE s.left_at > s.reached_at
      AND p.campaign_id IS NOT NULL
      AND (of_campaign IS NULL OR p.campaign_id = of_campaign)
      AND (of_account IS NULL OR p.account = of_account)
    GROUP BY 1, 2, 3, 4
$$;
COMMENT ON FUNCTION postalytics.stay_counts(text, text) IS
    'internal: how many pieces of each campaign stayed how long at each status';

-- The time zone of the front's session decides what a day is.
CREATE FUNCTION postalytics.responses_by_day_in(time_zone text)
RETURNS SETOF postalytics.responses_by_day
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('timezone', time_zone, true);
    RETURN QUERY SELECT r.* FROM postalytics.responses_by_day AS r;
END
$$;
COMMENT ON FUNCTION postalytics.responses_by_day_in(text) IS
    'internal: responses_by_day with the days of a time zone';
