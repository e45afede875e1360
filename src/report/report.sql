/*
 * report.sql
 *		What people ask of a campaign and of a piece, as views and functions.
 *		They read pieces, which holds what most questions need, and events only
 *		for what it does not.
 *
 * Functions' bodies are in quotes, as reached_at's.
 */

CREATE FUNCTION postalytics.bar(value double precision, whole double precision, width integer DEFAULT 20)
RETURNS text
LANGUAGE c
STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_bar';
COMMENT ON FUNCTION postalytics.bar(double precision, double precision, integer) IS
    'a bar for the terminal, as long as value is of whole; of # where it is not UTF-8';

CREATE FUNCTION postalytics.rate(part bigint, whole bigint)
RETURNS numeric
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
RETURN pg_catalog.round(part::numeric OPERATOR(pg_catalog./) NULLIF(whole, 0), 4);
COMMENT ON FUNCTION postalytics.rate(bigint, bigint) IS
    'part as a share of whole, from 0 to 1; NULL of nothing';

CREATE FUNCTION postalytics.was_sent(piece postalytics.pieces)
RETURNS boolean
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
SELECT COALESCE(piece.mailed_at, piece.first_opened_at, piece.first_completed_at) IS NOT NULL OR postalytics.was_scanned(piece)
$$;
COMMENT ON FUNCTION postalytics.was_sent(postalytics.pieces) IS
    'true if a piece must have been mailed, even if Mailed was not reported: it was mailed, scanned or answered';

CREATE FUNCTION postalytics.was_scanned(piece postalytics.pieces)
RETURNS boolean
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
SELECT COALESCE(piece.in_transit_at, piece.in_local_area_at, piece.processed_for_delivery_at,
                piece.re_routed_at, piece.returned_to_sender_at) IS NOT NULL
$$;
COMMENT ON FUNCTION postalytics.was_scanned(postalytics.pieces) IS
    'true if the post has reported a piece';

CREATE FUNCTION postalytics.is_tracked(piece postalytics.pieces)
RETURNS boolean
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
SELECT postalytics.was_scanned(piece)
    OR postalytics.was_sent(piece) AND postalytics.applies_in('InTransit', piece.country) IS NOT FALSE
$$;
COMMENT ON FUNCTION postalytics.is_tracked(postalytics.pieces) IS
    'true if a piece was scanned, or was sent to a country that may have postal scans';

CREATE FUNCTION postalytics.expected_day(expected_delivery_at timestamptz)
RETURNS date
LANGUAGE sql
STABLE PARALLEL SAFE
AS $$
SELECT CASE
           WHEN (expected_delivery_at AT TIME ZONE 'UTC')::time OPERATOR(pg_catalog.=) '00:00'
           THEN (expected_delivery_at AT TIME ZONE 'UTC')::date
           ELSE (expected_delivery_at AT TIME ZONE postalytics.setting('feed_time_zone'))::date
       END
$$;
COMMENT ON FUNCTION postalytics.expected_day(timestamptz) IS
    'internal: the day that the feed means by an expected delivery date, which it writes as midnight';

CREATE FUNCTION postalytics.late_from(piece postalytics.pieces)
RETURNS timestamptz
LANGUAGE sql
STABLE PARALLEL SAFE
AS $$
SELECT (postalytics.expected_day(piece.expected_delivery_at) + 1)::timestamp
       AT TIME ZONE COALESCE(postalytics.zip_time_zone(piece.zip), 'America/New_York')
$$;
COMMENT ON FUNCTION postalytics.late_from(postalytics.pieces) IS
    'end of the expected delivery day in the recipient''s time zone; NULL if no delivery date is known';

-- ---- campaigns ----

-- Each rate is a share of the pieces that can have the event, so it is never
-- above 1: postal events as a share of tracked pieces, responses as a share of
-- sent pieces.
CREATE VIEW postalytics.campaign_funnel AS
SELECT f.campaign_id,
       c.name AS campaign_name,
       c.account,
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
       round(extract(epoch FROM f.days[1]) / 86400, 1) AS median_days,
       round(extract(epoch FROM f.days[2]) / 86400, 1) AS p90_days
FROM (
    SELECT p.campaign_id,
           count(*) AS pieces,
           count(p.mail_piece_created_at) AS mail_piece_created,
           count(p.addressed_at) AS addressed,
           count(p.printed_at) AS printed,
           count(p.mailed_at) AS mailed,
           count(*) FILTER (WHERE postalytics.was_sent(p)) AS sent,
           count(*) FILTER (WHERE postalytics.is_tracked(p)) AS tracked,
           count(p.in_transit_at) AS in_transit,
           count(p.in_local_area_at) AS in_local_area,
           count(p.processed_for_delivery_at) AS processed_for_delivery,
           count(p.re_routed_at) AS re_routed,
           count(p.returned_to_sender_at) AS returned_to_sender,
           count(p.first_opened_at) AS purl_opened,
           count(p.first_completed_at) AS purl_completed,
           count(p.response) AS responded,
           count(*) FILTER (WHERE p.status = 'MailPieceCreated') AS at_mail_piece_created,
           count(*) FILTER (WHERE p.status = 'Addressed') AS at_addressed,
           count(*) FILTER (WHERE p.status = 'Printed') AS at_printed,
           count(*) FILTER (WHERE p.status = 'Mailed') AS at_mailed,
           count(*) FILTER (WHERE p.status = 'InTransit') AS at_in_transit,
           count(*) FILTER (WHERE p.status = 'InLocalArea') AS at_in_local_area,
           count(*) FILTER (WHERE p.status = 'ProcessedForDelivery') AS at_processed_for_delivery,
           count(*) FILTER (WHERE p.status = 'ReRouted') AS at_re_routed,
           count(*) FILTER (WHERE p.status = 'ReturnedToSender') AS at_returned_to_sender,
           min(p.mailed_at) AS first_mailed_at,
           max(p.mailed_at) AS last_mailed_at,
           max(p.last_event_at) AS last_event_at,
           percentile_cont(ARRAY[0.5, 0.9]) WITHIN GROUP (ORDER BY p.processed_for_delivery_at - p.mailed_at)
               FILTER (WHERE p.processed_for_delivery_at >= p.mailed_at) AS days
    FROM postalytics.pieces AS p
    GROUP BY p.campaign_id
) AS f
LEFT JOIN postalytics.campaigns AS c ON c.campaign_id = f.campaign_id;
COMMENT ON VIEW postalytics.campaign_funnel IS
    'one row per campaign: the pieces that have reached each status and those at it now, and their shares of the mailed';
COMMENT ON COLUMN postalytics.campaign_funnel.pieces IS 'all; those without a campaign are in the row without campaign_id';
COMMENT ON COLUMN postalytics.campaign_funnel.mailed IS 'pieces with such an event, as for the other statuses';
COMMENT ON COLUMN postalytics.campaign_funnel.responded IS 'pieces with a visit to the personal or the goal URL';
COMMENT ON COLUMN postalytics.campaign_funnel.mailed_rate IS 'share of all pieces';
COMMENT ON COLUMN postalytics.campaign_funnel.in_transit_rate IS 'share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel.in_local_area_rate IS 'share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel.processed_for_delivery_rate IS 'share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel.re_routed_rate IS 'share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel.returned_to_sender_rate IS 'share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel.purl_opened_rate IS 'share of the sent pieces (was_sent)';
COMMENT ON COLUMN postalytics.campaign_funnel.purl_completed_rate IS 'share of the sent pieces (was_sent)';
COMMENT ON COLUMN postalytics.campaign_funnel.responded_rate IS 'share of the sent pieces (was_sent)';
COMMENT ON COLUMN postalytics.campaign_funnel.at_mailed IS 'pieces of which it is the current status';
COMMENT ON COLUMN postalytics.campaign_funnel.median_days IS 'from Mailed to ProcessedForDelivery';
COMMENT ON COLUMN postalytics.campaign_funnel.p90_days IS 'as median_days, the 90th percentile';

CREATE VIEW postalytics.campaign_funnel_by_country AS
SELECT f.campaign_id,
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
       postalytics.rate(f.responded, f.sent) AS responded_rate
FROM (
    SELECT p.campaign_id,
           p.country,
           count(*) AS pieces,
           count(*) FILTER (WHERE postalytics.was_sent(p)) AS sent,
           count(*) FILTER (WHERE postalytics.is_tracked(p)) AS tracked,
           count(p.mailed_at) AS mailed,
           count(p.in_transit_at) AS in_transit,
           count(p.in_local_area_at) AS in_local_area,
           count(p.processed_for_delivery_at) AS processed_for_delivery,
           count(p.re_routed_at) AS re_routed,
           count(p.returned_to_sender_at) AS returned_to_sender,
           count(p.response) AS responded
    FROM postalytics.pieces AS p
    GROUP BY p.campaign_id, p.country
) AS f;
COMMENT ON VIEW postalytics.campaign_funnel_by_country IS
    'one row per campaign and country; NULL for the rates of what the country does not report';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.mailed_rate IS 'share of all pieces';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.in_transit_rate IS 'share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.in_local_area_rate IS 'share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.processed_for_delivery_rate IS 'share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.re_routed_rate IS 'share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.returned_to_sender_rate IS 'share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.responded_rate IS 'share of the sent pieces (was_sent)';

CREATE VIEW postalytics.campaign_progress AS
SELECT f.campaign_id,
       COALESCE(f.campaign_name, f.campaign_id) AS campaign,
       f.account,
       f.pieces,
       postalytics.bar(f.mailed_rate::double precision, 1, 10) AS mailed,
       postalytics.bar(f.processed_for_delivery_rate::double precision, 1, 10) AS processed,
       f.returned_to_sender AS returned,
       postalytics.bar(f.responded_rate::double precision, 1, 10) AS responded,
       f.purl_completed AS completed,
       f.last_event_at
FROM postalytics.campaign_funnel AS f
ORDER BY f.last_event_at DESC;
COMMENT ON VIEW postalytics.campaign_progress IS
    'running campaigns as bars, the one with the latest event first; for \watch';
COMMENT ON COLUMN postalytics.campaign_progress.mailed IS 'mailed_rate of campaign_funnel as a bar';
COMMENT ON COLUMN postalytics.campaign_progress.processed IS 'processed_for_delivery_rate of campaign_funnel as a bar; NULL where no piece is in a country with postal scans';
COMMENT ON COLUMN postalytics.campaign_progress.responded IS 'responded_rate of campaign_funnel as a bar';

-- ---- as of a time ----

-- A piece without a later event has its current status.  For retired events the
-- piece still has the first time of each status, but not later ones, so a piece
-- that was re-routed more than once may show the status after the first
-- re-routing.
CREATE FUNCTION postalytics.status_as_of(piece_id text, as_of timestamptz)
RETURNS postalytics.mail_status
LANGUAGE sql
STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT CASE
           WHEN p.last_event_at <= as_of THEN p.status
           ELSE (SELECT postalytics.current_status(e.status, e.occurred_at)
                 FROM (SELECT e.status, e.occurred_at
                       FROM postalytics.events AS e
                       WHERE e.piece_id = status_as_of.piece_id
                       UNION ALL
                       SELECT s.status, postalytics.reached_at(p, s.status)
                       FROM postalytics.statuses AS s) AS e
                 WHERE e.occurred_at <= as_of)
       END
FROM postalytics.pieces AS p
WHERE p.piece_id = status_as_of.piece_id
$$;
COMMENT ON FUNCTION postalytics.status_as_of(text, timestamptz) IS
    'status of a piece at a time, or NULL; in retired months only the first event of each status counts';

-- Asks status_as_of only for the pieces that need it.
CREATE FUNCTION postalytics.funnel(campaign_id text, as_of timestamptz DEFAULT 'infinity')
RETURNS TABLE (status postalytics.mail_status, label text, reached bigint, "at" bigint, rate numeric, bar text)
LANGUAGE sql
STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
WITH piece AS (
    SELECT p.*,
           CASE WHEN p.last_event_at <= as_of THEN p.status ELSE postalytics.status_as_of(p.piece_id, as_of) END AS was_at
    FROM postalytics.pieces AS p
    WHERE p.campaign_id = funnel.campaign_id
      AND p.first_event_at <= as_of
), counted AS (
    SELECT count(*) AS pieces,
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
), at AS (
    SELECT p.was_at AS status, count(*) AS pieces
    FROM piece AS p
    GROUP BY p.was_at
)
SELECT s.status, s.label, c.reached[s.place], COALESCE(a.pieces, 0),
       postalytics.rate(c.reached[s.place], c.pieces),
       postalytics.bar(c.reached[s.place], c.pieces)
FROM (SELECT t.status, t.label, row_number() OVER (ORDER BY t.status) AS place FROM postalytics.statuses AS t) AS s
CROSS JOIN counted AS c
LEFT JOIN at AS a ON a.status = s.status
ORDER BY s.status
$$;
COMMENT ON FUNCTION postalytics.funnel(text, timestamptz) IS
    'a campaign as of an instant: for each status the pieces that had reached it, as a share of all, and those at it';

-- ---- pieces ----

-- The days between are those since the event before.  Of events that are retired
-- the piece still knows when each status was first reached.
CREATE FUNCTION postalytics.journey(piece_id text)
RETURNS TABLE (occurred_at timestamptz, label text, days numeric, note text, status postalytics.mail_status)
LANGUAGE sql
STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
WITH event AS (
    SELECT e.status, e.occurred_at
    FROM postalytics.events AS e
    WHERE e.piece_id = journey.piece_id
), seen AS (
    SELECT s.status, s.occurred_at,
           lag(s.occurred_at) OVER (ORDER BY s.occurred_at, s.status) AS before
    FROM (
        SELECT e.status, e.occurred_at
        FROM event AS e
        UNION ALL
        SELECT s.status, r.reached_at
        FROM postalytics.pieces AS p
        CROSS JOIN postalytics.statuses AS s
        CROSS JOIN LATERAL postalytics.reached_at(p, s.status) AS r (reached_at)
        WHERE p.piece_id = journey.piece_id
          AND r.reached_at IS NOT NULL
          AND NOT EXISTS (SELECT FROM event AS e WHERE e.status = s.status)
    ) AS s
), unseen AS (
    SELECT s.status,
           (SELECT min(e.occurred_at) FROM seen AS e WHERE e.status OPERATOR(postalytics.>>) s.status) AS by
    FROM postalytics.statuses AS s
    CROSS JOIN postalytics.pieces AS p
    WHERE p.piece_id = journey.piece_id
      AND s.status IN ('MailPieceCreated', 'Mailed', 'InTransit', 'InLocalArea', 'ProcessedForDelivery')
      AND postalytics.applies_in(s.status, p.country) IS NOT FALSE
      AND NOT EXISTS (SELECT FROM seen AS e WHERE e.status = s.status)
      AND (p.status = 'ReturnedToSender') IS NOT TRUE
), entry AS (
    SELECT e.occurred_at, e.status, e.occurred_at AS place,
           round(extract(epoch FROM e.occurred_at - e.before) / 86400, 1) AS days,
           CASE
               WHEN e.status = 'ProcessedForDelivery' AND e.occurred_at >= postalytics.late_from(p)
               THEN 'late'
           END AS note
    FROM seen AS e
    CROSS JOIN postalytics.pieces AS p
    WHERE p.piece_id = journey.piece_id
    UNION ALL
    SELECT NULL, u.status, COALESCE(u.by, 'infinity'), NULL,
           CASE
               WHEN u.by IS NOT NULL THEN 'not reported'
               WHEN postalytics.late_from(p) <= now() THEN 'awaited, late'
               ELSE 'awaited'
           END
    FROM unseen AS u
    CROSS JOIN postalytics.pieces AS p
    WHERE p.piece_id = journey.piece_id
)
SELECT n.occurred_at, postalytics.label(n.status), n.days, n.note, n.status
FROM entry AS n
ORDER BY n.place, n.occurred_at IS NOT NULL, n.status
$$;
COMMENT ON FUNCTION postalytics.journey(text) IS
    'a piece''s events as people read them: in order, with the days between, and what is missing, awaited or late';

-- Whoever has visited has the piece, whatever was scanned of it.
--
-- A piece that has stayed longer than younger_than is not expected to move: its
-- last scan was missed.  NULL means no limit.
--
-- How long pieces stay at a status is taken from those of the same campaign that
-- have gone on from it, if they are 20 or more; for the statuses only at which
-- some wait.  It is looked up in a map, for the plan of a join would depend on an
-- estimate of how many are stuck.
CREATE FUNCTION postalytics.stuck_pieces(older_than interval DEFAULT NULL, campaign text DEFAULT NULL, younger_than interval DEFAULT '60 days')
RETURNS TABLE (piece_id text, campaign_id text, account text, contact_id text, country text,
               status postalytics.mail_status, status_at timestamptz, awaited postalytics.mail_status,
               stuck_for interval, usual interval)
LANGUAGE sql
STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
WITH waiting AS MATERIALIZED (
    SELECT p.piece_id, p.campaign_id, p.account, p.contact_id, p.country, p.status, p.status_at
    FROM postalytics.pieces AS p
    WHERE p.status <> ALL ('{ProcessedForDelivery,ReturnedToSender}')
      AND p.response IS NULL
      AND (younger_than IS NULL OR p.status_at > now() - younger_than)
      AND (campaign IS NULL OR p.campaign_id = campaign)
      AND (p.status OPERATOR(postalytics.<<) 'Mailed' OR postalytics.applies_in('InTransit', p.country) IS NOT FALSE)
), stay AS (
    SELECT w.campaign_id, w.status,
           percentile_cont(0.95) WITHIN GROUP (ORDER BY s.left_at - s.reached_at) AS usual
    FROM (SELECT DISTINCT w.campaign_id, w.status FROM waiting AS w WHERE older_than IS NULL) AS w
    JOIN postalytics.pieces AS p ON p.campaign_id = w.campaign_id
    CROSS JOIN LATERAL (
        SELECT postalytics.reached_at(p, w.status) AS reached_at,
               CASE w.status
                   WHEN 'MailPieceCreated' THEN
                       LEAST(p.addressed_at, p.printed_at, p.mailed_at, p.in_transit_at, p.in_local_area_at,
                             p.processed_for_delivery_at, p.re_routed_at, p.returned_to_sender_at)
                   WHEN 'Addressed' THEN
                       LEAST(p.printed_at, p.mailed_at, p.in_transit_at, p.in_local_area_at,
                             p.processed_for_delivery_at, p.re_routed_at, p.returned_to_sender_at)
                   WHEN 'Printed' THEN
                       LEAST(p.mailed_at, p.in_transit_at, p.in_local_area_at,
                             p.processed_for_delivery_at, p.re_routed_at, p.returned_to_sender_at)
                   WHEN 'Mailed' THEN
                       LEAST(p.in_transit_at, p.in_local_area_at,
                             p.processed_for_delivery_at, p.re_routed_at, p.returned_to_sender_at)
                   WHEN 'InTransit' THEN
                       LEAST(p.in_local_area_at, p.processed_for_delivery_at, p.re_routed_at, p.returned_to_sender_at)
                   WHEN 'InLocalArea' THEN
                       LEAST(p.processed_for_delivery_at, p.re_routed_at, p.returned_to_sender_at)
                   WHEN 'ReRouted' THEN
                       CASE WHEN p.status <> 'ReRouted' THEN p.status_at END
               END AS left_at
    ) AS s
    WHERE s.left_at > s.reached_at
    GROUP BY w.campaign_id, w.status
    HAVING count(*) >= 20
), stays AS (
    SELECT jsonb_object_agg(s.campaign_id || '/' || s.status, s.usual) AS map
    FROM stay AS s
)
SELECT w.piece_id, w.campaign_id, w.account, w.contact_id, w.country, w.status, w.status_at,
       CASE w.status
           WHEN 'Mailed' THEN 'InTransit'
           WHEN 'InTransit' THEN 'InLocalArea'
           WHEN 'InLocalArea' THEN 'ProcessedForDelivery'
           WHEN 'ReRouted' THEN 'ProcessedForDelivery'
           ELSE 'Mailed'
       END::postalytics.mail_status,
       now() - w.status_at,
       u.usual
FROM waiting AS w
CROSS JOIN LATERAL (
    SELECT COALESCE(older_than, ((SELECT s.map FROM stays AS s) ->> (w.campaign_id || '/' || w.status))::interval) AS usual
) AS u
WHERE now() - w.status_at > u.usual
ORDER BY w.status_at
$$;
COMMENT ON FUNCTION postalytics.stuck_pieces(interval, text, interval) IS
    'pieces that should have moved on: longer at their status than older_than, or than 95 % of their campaign, but not longer than younger_than';

CREATE VIEW postalytics.returned_mail AS
SELECT p.piece_id,
       p.campaign_id,
       p.account,
       p.contact_id,
       e.status,
       e.occurred_at,
       p.first_name,
       p.last_name,
       p.company,
       p.email,
       d.error_code,
       d.error_description,
       d.address_updated,
       d.address,
       d.address2,
       d.city,
       d.state,
       d.zip,
       p.country,
       p.fields
FROM postalytics.pieces AS p
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (e.status) e.status, e.occurred_at, e.payload
    FROM (
        SELECT e.status, e.occurred_at, e.payload
        FROM postalytics.events AS e
        WHERE e.piece_id = p.piece_id
          AND e.status IN ('ReRouted', 'ReturnedToSender')
          AND e.occurred_at >= LEAST(p.re_routed_at, p.returned_to_sender_at)
        UNION ALL
        SELECT r.status, r.reached_at, NULL
        FROM (VALUES ('ReRouted'::postalytics.mail_status, p.re_routed_at),
                     ('ReturnedToSender', p.returned_to_sender_at)) AS r (status, reached_at)
        WHERE r.reached_at IS NOT NULL
    ) AS e
    ORDER BY e.status, e.occurred_at DESC, e.payload IS NULL
) AS e
LEFT JOIN LATERAL postalytics.payload_details(e.payload) AS d ON true
WHERE p.re_routed_at IS NOT NULL
   OR p.returned_to_sender_at IS NOT NULL;
COMMENT ON VIEW postalytics.returned_mail IS
    'pieces returned and pieces re-routed, with the error code and the address that the feed gave with the latest such event, NULL once its month is beyond retention; for address hygiene';

-- ---- responses ----

CREATE VIEW postalytics.campaign_responses AS
SELECT r.campaign_id,
       c.name AS campaign_name,
       r.mailed,
       r.visitors,
       r.visits,
       r.completers,
       r.completions,
       r.not_completed,
       postalytics.rate(r.visitors, r.sent) AS visitors_rate,
       postalytics.rate(r.completers, r.visitors) AS completers_rate,
       round(extract(epoch FROM r.first_visit_after) / 86400, 1) AS median_days_to_visit
FROM (
    SELECT p.campaign_id,
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
    GROUP BY p.campaign_id
) AS r
LEFT JOIN postalytics.campaigns AS c ON c.campaign_id = r.campaign_id;
COMMENT ON VIEW postalytics.campaign_responses IS
    'one row per campaign: visitors, their visits, who reached the goal and who did not';
COMMENT ON COLUMN postalytics.campaign_responses.visitors_rate IS 'share of the pieces that were sent (was_sent), as responded_rate of campaign_funnel';
COMMENT ON COLUMN postalytics.campaign_responses.completers_rate IS 'share of the visitors; purl_completed_rate of campaign_funnel is the share of the pieces that were sent';
COMMENT ON COLUMN postalytics.campaign_responses.median_days_to_visit IS 'from Mailed to the first visit, of the pieces of which both are known in that order';

-- For retired months only the first visit of each kind is known.
CREATE VIEW postalytics.responses_by_day AS
SELECT r.campaign_id,
       r.occurred_at::date AS day,
       count(*) FILTER (WHERE r.status = 'pURLOpened') AS visits,
       count(DISTINCT r.piece_id) FILTER (WHERE r.status = 'pURLOpened') AS visitors,
       count(*) FILTER (WHERE r.status = 'pURLCompleted') AS completions,
       count(DISTINCT r.piece_id) FILTER (WHERE r.status = 'pURLCompleted') AS completers
FROM (
    SELECT p.campaign_id, e.piece_id, e.status, e.occurred_at
    FROM postalytics.events AS e
    JOIN postalytics.pieces AS p ON p.piece_id = e.piece_id
    WHERE e.status IN ('pURLOpened', 'pURLCompleted')
    UNION ALL
    SELECT p.campaign_id, p.piece_id, f.status, f.reached_at
    FROM postalytics.pieces AS p
    CROSS JOIN LATERAL (VALUES ('pURLOpened'::postalytics.mail_status, p.first_opened_at),
                               ('pURLCompleted', p.first_completed_at)) AS f (status, reached_at)
    WHERE p.response IS NOT NULL
      AND f.reached_at IS NOT NULL
      AND NOT EXISTS (SELECT
                      FROM postalytics.events AS e
                      WHERE (e.piece_id, e.status, e.occurred_at) = (p.piece_id, f.status, f.reached_at))
) AS r
GROUP BY r.campaign_id, r.occurred_at::date;
COMMENT ON VIEW postalytics.responses_by_day IS
    'one row per campaign and day of the session''s time zone: visits to the personal and to the goal URL; in months beyond retention the first of each piece';
