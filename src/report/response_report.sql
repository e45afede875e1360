/*
 * response_report.sql
 *		Reports on responses.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE VIEW postalytics.campaign_responses
WITH (security_invoker = true) AS
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
       round(extract(epoch FROM r.first_visit_after) / 86400, 1) AS median_days_to_visit,
       r.sent
FROM (
    SELECT p.account,
           p.campaign_id,
           count(p.mailed_at) AS mailed,
           count(*) FILTER (WHERE postalytics.was_sent(p)) AS sent,
           count(p.response) AS visitors,
           sum(p.opens)::bigint AS visits,
           count(p.first_completed_at) AS completers,
           sum(p.completions)::bigint AS completions,
           count(*) FILTER (WHERE p.response = 'pURLOpened') AS not_completed,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY LEAST(p.first_opened_at, p.first_completed_at) - p.mailed_at)
               FILTER (WHERE LEAST(p.first_opened_at, p.first_completed_at) >= p.mailed_at) AS first_visit_after
    FROM postalytics.pieces AS p
    GROUP BY p.account, p.campaign_id
) AS r
LEFT JOIN postalytics.campaigns AS c ON (c.campaign_id, c.account) = (r.campaign_id, r.account);
COMMENT ON VIEW postalytics.campaign_responses IS
    'one row per campaign of an account: visitors, their visits, and how many visitors reached the goal URL and how many did not';
COMMENT ON COLUMN postalytics.campaign_responses.account IS 'account of the campaign; empty if none was given';
COMMENT ON COLUMN postalytics.campaign_responses.campaign_id IS 'campaign; NULL for pieces without one';
COMMENT ON COLUMN postalytics.campaign_responses.campaign_name IS 'name of the campaign; NULL if unknown';
COMMENT ON COLUMN postalytics.campaign_responses.mailed IS 'pieces with an event of status Mailed';
COMMENT ON COLUMN postalytics.campaign_responses.visitors IS 'pieces with a visit to the personal URL or the goal URL';
COMMENT ON COLUMN postalytics.campaign_responses.visits IS 'number of visits to the personal URL';
COMMENT ON COLUMN postalytics.campaign_responses.completers IS 'pieces with a visit to the goal URL';
COMMENT ON COLUMN postalytics.campaign_responses.completions IS 'number of visits to the goal URL';
COMMENT ON COLUMN postalytics.campaign_responses.not_completed IS 'visitors who did not visit the goal URL';
COMMENT ON COLUMN postalytics.campaign_responses.visitors_rate IS 'visitors as a share of the sent pieces (was_sent), the same as responded_rate of campaign_funnel';
COMMENT ON COLUMN postalytics.campaign_responses.completers_rate IS 'completers as a share of the visitors; in campaign_funnel, purl_completed_rate is their share of the sent pieces';
COMMENT ON COLUMN postalytics.campaign_responses.median_days_to_visit IS 'median number of days from Mailed to the first visit, for pieces whose first visit is not before Mailed';
COMMENT ON COLUMN postalytics.campaign_responses.sent IS 'pieces that were mailed, even if Mailed was not reported (was_sent)';

-- In retired months, only the first visit to each of the two URLs of a piece is known.
CREATE VIEW postalytics.responses_by_day
WITH (security_invoker = true) AS
SELECT r.account,
       r.campaign_id,
       r.occurred_at::date AS day,
       count(*) FILTER (WHERE r.status = 'pURLOpened') AS visits,
       count(DISTINCT r.piece_id) FILTER (WHERE r.status = 'pURLOpened') AS visitors,
       count(*) FILTER (WHERE r.status = 'pURLCompleted') AS completions,
       count(DISTINCT r.piece_id) FILTER (WHERE r.status = 'pURLCompleted') AS completers
FROM (
    SELECT p.account, p.campaign_id, e.piece_id, e.status, e.occurred_at
    FROM postalytics.events AS e
    JOIN postalytics.pieces AS p ON (p.piece_id, p.account) = (e.piece_id, e.account)
    WHERE e.status IN ('pURLOpened', 'pURLCompleted')
    UNION ALL
    SELECT p.account, p.campaign_id, p.piece_id, f.status, f.reached_at
    FROM postalytics.pieces AS p
    CROSS JOIN LATERAL (VALUES ('pURLOpened'::postalytics.mail_status, p.first_opened_at),
                               ('pURLCompleted', p.first_completed_at)) AS f (status, reached_at)
    WHERE p.response IS NOT NULL
      AND f.reached_at IS NOT NULL
      AND NOT EXISTS (SELECT
                      FROM postalytics.events AS e
                      WHERE (e.piece_id, e.account, e.status, e.occurred_at)
                            = (p.piece_id, p.account, f.status, f.reached_at))
) AS r
GROUP BY r.account, r.campaign_id, r.occurred_at::date;
COMMENT ON VIEW postalytics.responses_by_day IS
    'one row per campaign of an account and day in the session''s time zone: visits to the personal URL and the goal URL; in retired months, only the first visit to each URL of a piece';
COMMENT ON COLUMN postalytics.responses_by_day.account IS 'account of the campaign; empty if none was given';
COMMENT ON COLUMN postalytics.responses_by_day.campaign_id IS 'campaign; NULL for pieces without one';
COMMENT ON COLUMN postalytics.responses_by_day.day IS 'day, in the time zone of the session';
COMMENT ON COLUMN postalytics.responses_by_day.visits IS 'number of visits to the personal URL';
COMMENT ON COLUMN postalytics.responses_by_day.visitors IS 'pieces with a visit to the personal URL';
COMMENT ON COLUMN postalytics.responses_by_day.completions IS 'number of visits to the goal URL';
COMMENT ON COLUMN postalytics.responses_by_day.completers IS 'pieces with a visit to the goal URL';
