/*
 * campaign_report.sql
 *		Reports on campaigns.  They read pieces and production_errors.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- Each rate is a share of the pieces that can have the event, so it is never above 1.
-- Rates of postal events are shares of the tracked pieces, and rates of responses are
-- shares of the sent pieces.
CREATE VIEW postalytics.campaign_funnel
WITH (security_invoker = true) AS
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
       COALESCE(x.failed, 0) AS failed,
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
       round(extract(epoch FROM f.days[2]) / 86400, 1) AS p90_days,
       f.sent,
       f.tracked
FROM (
    SELECT p.account,
           p.campaign_id,
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
    GROUP BY p.account, p.campaign_id
) AS f
LEFT JOIN postalytics.campaigns AS c ON (c.campaign_id, c.account) = (f.campaign_id, f.account)
LEFT JOIN (
    SELECT e.account, e.campaign_id, count(DISTINCT e.piece_id) AS failed
    FROM postalytics.production_errors AS e
    GROUP BY e.account, e.campaign_id
) AS x ON (x.account, COALESCE(x.campaign_id, '')) = (f.account, COALESCE(f.campaign_id, ''))
UNION ALL
-- Campaigns that have production errors but no pieces.
SELECT x.account, x.campaign_id, c.name, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, x.failed, NULL, NULL,
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL,
       x.last_event_at, NULL, NULL, 0, 0
FROM (
    SELECT e.account, e.campaign_id, count(DISTINCT e.piece_id) AS failed, max(e.occurred_at) AS last_event_at
    FROM postalytics.production_errors AS e
    GROUP BY e.account, e.campaign_id
) AS x
LEFT JOIN postalytics.campaigns AS c ON (c.campaign_id, c.account) = (x.campaign_id, x.account)
WHERE NOT EXISTS (SELECT
                  FROM postalytics.pieces AS p
                  WHERE p.account = x.account
                    AND (p.campaign_id = x.campaign_id
                         OR p.campaign_id IS NULL AND x.campaign_id IS NULL));
COMMENT ON VIEW postalytics.campaign_funnel IS
    'one row per campaign of an account: how many pieces have reached each status, how many are at it now, and rates';
COMMENT ON COLUMN postalytics.campaign_funnel.account IS 'account of the campaign; empty if none was given';
COMMENT ON COLUMN postalytics.campaign_funnel.campaign_id IS 'campaign; NULL for pieces without one';
COMMENT ON COLUMN postalytics.campaign_funnel.campaign_name IS 'name of the campaign; NULL if unknown';
COMMENT ON COLUMN postalytics.campaign_funnel.pieces IS 'number of pieces; pieces without a campaign are in the row whose campaign_id is NULL';
COMMENT ON COLUMN postalytics.campaign_funnel.mail_piece_created IS 'pieces with an event of status MailPieceCreated';
COMMENT ON COLUMN postalytics.campaign_funnel.addressed IS 'pieces with an event of status Addressed';
COMMENT ON COLUMN postalytics.campaign_funnel.printed IS 'pieces with an event of status Printed';
COMMENT ON COLUMN postalytics.campaign_funnel.mailed IS 'pieces with an event of status Mailed';
COMMENT ON COLUMN postalytics.campaign_funnel.in_transit IS 'pieces with an event of status InTransit';
COMMENT ON COLUMN postalytics.campaign_funnel.in_local_area IS 'pieces with an event of status InLocalArea';
COMMENT ON COLUMN postalytics.campaign_funnel.processed_for_delivery IS 'pieces with an event of status ProcessedForDelivery';
COMMENT ON COLUMN postalytics.campaign_funnel.re_routed IS 'pieces with an event of status ReRouted';
COMMENT ON COLUMN postalytics.campaign_funnel.returned_to_sender IS 'pieces with an event of status ReturnedToSender';
COMMENT ON COLUMN postalytics.campaign_funnel.purl_opened IS 'pieces with an event of status pURLOpened';
COMMENT ON COLUMN postalytics.campaign_funnel.purl_completed IS 'pieces with an event of status pURLCompleted';
COMMENT ON COLUMN postalytics.campaign_funnel.responded IS 'pieces with a visit to the personal or the goal URL';
COMMENT ON COLUMN postalytics.campaign_funnel.failed IS 'pieces with a production error; counted in pieces only if they also have events';
COMMENT ON COLUMN postalytics.campaign_funnel.mailed_rate IS 'mailed as a share of all pieces';
COMMENT ON COLUMN postalytics.campaign_funnel.in_transit_rate IS 'in_transit as a share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel.in_local_area_rate IS 'in_local_area as a share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel.processed_for_delivery_rate IS 'processed_for_delivery as a share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel.re_routed_rate IS 're_routed as a share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel.returned_to_sender_rate IS 'returned_to_sender as a share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel.purl_opened_rate IS 'purl_opened as a share of the sent pieces (was_sent)';
COMMENT ON COLUMN postalytics.campaign_funnel.purl_completed_rate IS 'purl_completed as a share of the sent pieces (was_sent)';
COMMENT ON COLUMN postalytics.campaign_funnel.responded_rate IS 'responded as a share of the sent pieces (was_sent)';
COMMENT ON COLUMN postalytics.campaign_funnel.at_mail_piece_created IS 'pieces whose current status is MailPieceCreated';
COMMENT ON COLUMN postalytics.campaign_funnel.at_addressed IS 'pieces whose current status is Addressed';
COMMENT ON COLUMN postalytics.campaign_funnel.at_printed IS 'pieces whose current status is Printed';
COMMENT ON COLUMN postalytics.campaign_funnel.at_mailed IS 'pieces whose current status is Mailed';
COMMENT ON COLUMN postalytics.campaign_funnel.at_in_transit IS 'pieces whose current status is InTransit';
COMMENT ON COLUMN postalytics.campaign_funnel.at_in_local_area IS 'pieces whose current status is InLocalArea';
COMMENT ON COLUMN postalytics.campaign_funnel.at_processed_for_delivery IS 'pieces whose current status is ProcessedForDelivery';
COMMENT ON COLUMN postalytics.campaign_funnel.at_re_routed IS 'pieces whose current status is ReRouted';
COMMENT ON COLUMN postalytics.campaign_funnel.at_returned_to_sender IS 'pieces whose current status is ReturnedToSender';
COMMENT ON COLUMN postalytics.campaign_funnel.first_mailed_at IS 'earliest of the first Mailed events of pieces';
COMMENT ON COLUMN postalytics.campaign_funnel.last_mailed_at IS 'latest of the first Mailed events of pieces';
COMMENT ON COLUMN postalytics.campaign_funnel.last_event_at IS 'time of the latest event';
COMMENT ON COLUMN postalytics.campaign_funnel.median_days IS 'median number of days from Mailed to ProcessedForDelivery';
COMMENT ON COLUMN postalytics.campaign_funnel.p90_days IS '90th percentile of the number of days from Mailed to ProcessedForDelivery';
COMMENT ON COLUMN postalytics.campaign_funnel.sent IS 'pieces that were mailed, even if Mailed was not reported (was_sent)';
COMMENT ON COLUMN postalytics.campaign_funnel.tracked IS 'pieces that the postal service scans (is_tracked)';

CREATE VIEW postalytics.campaign_funnel_by_country
WITH (security_invoker = true) AS
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
    SELECT p.account,
           p.campaign_id,
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
    GROUP BY p.account, p.campaign_id, p.country
) AS f;
COMMENT ON VIEW postalytics.campaign_funnel_by_country IS
    'one row per campaign of an account and country; rates of statuses that the country does not report are NULL';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.account IS 'account of the campaign; empty if none was given';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.campaign_id IS 'campaign; NULL for pieces without one';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.country IS 'country of the recipients, as the feed spells it; NULL if unknown';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.pieces IS 'number of pieces';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.mailed IS 'pieces with an event of status Mailed';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.in_transit IS 'pieces with an event of status InTransit';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.in_local_area IS 'pieces with an event of status InLocalArea';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.processed_for_delivery IS 'pieces with an event of status ProcessedForDelivery';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.re_routed IS 'pieces with an event of status ReRouted';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.returned_to_sender IS 'pieces with an event of status ReturnedToSender';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.responded IS 'pieces with a visit to the personal or the goal URL';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.mailed_rate IS 'mailed as a share of all pieces';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.in_transit_rate IS 'in_transit as a share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.in_local_area_rate IS 'in_local_area as a share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.processed_for_delivery_rate IS 'processed_for_delivery as a share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.re_routed_rate IS 're_routed as a share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.returned_to_sender_rate IS 'returned_to_sender as a share of the tracked pieces (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.responded_rate IS 'responded as a share of the sent pieces (was_sent)';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.sent IS 'pieces that were mailed, even if Mailed was not reported (was_sent)';
COMMENT ON COLUMN postalytics.campaign_funnel_by_country.tracked IS 'pieces that the postal service scans (is_tracked)';

CREATE VIEW postalytics.campaign_progress
WITH (security_invoker = true) AS
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
    'progress of campaigns as text bars, for use with \watch; the campaign with the latest event comes first';
COMMENT ON COLUMN postalytics.campaign_progress.campaign_id IS 'campaign; NULL for pieces without one';
COMMENT ON COLUMN postalytics.campaign_progress.campaign IS 'name of the campaign; its id if the name is unknown';
COMMENT ON COLUMN postalytics.campaign_progress.account IS 'account of the campaign; empty if none was given';
COMMENT ON COLUMN postalytics.campaign_progress.pieces IS 'number of pieces';
COMMENT ON COLUMN postalytics.campaign_progress.mailed IS 'mailed_rate of campaign_funnel as a bar';
COMMENT ON COLUMN postalytics.campaign_progress.processed IS 'processed_for_delivery_rate of campaign_funnel as a bar; NULL if no piece is tracked (is_tracked)';
COMMENT ON COLUMN postalytics.campaign_progress.returned IS 'pieces with an event of status ReturnedToSender';
COMMENT ON COLUMN postalytics.campaign_progress.responded IS 'responded_rate of campaign_funnel as a bar';
COMMENT ON COLUMN postalytics.campaign_progress.completed IS 'pieces with an event of status pURLCompleted';
COMMENT ON COLUMN postalytics.campaign_progress.last_event_at IS 'time of the latest event';
