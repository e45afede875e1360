-- Reports on events that are missing, out of order or retired: no rate is above one, no
-- number of days is negative, and what is stored in the piece is still reported.
\set SHOW_CONTEXT never
CREATE EXTENSION postalytics_status;
SET search_path = public, postalytics;
SELECT postalytics.configure('latest', '36500d');
SET timezone = 'UTC';
-- Ingest events of a piece, given as words "code@day" with days of October 2026.
CREATE FUNCTION events_of(piece text, campaign text, country text, events text) RETURNS bigint
LANGUAGE sql
AS $$
    SELECT inserted
    FROM ingest((SELECT json_agg(json_build_object(
                     'mailId', piece, 'eventType', split_part(e, '@', 1),
                     'eventDate', '2026-10-' || split_part(e, '@', 2) || 'T00:00:00Z',
                     'meta', json_build_object('campaignId', campaign), 'to', json_build_object('country', country)))
                 FROM string_to_table(events, ' ') AS e))
$$;

-- One US piece and one Canadian piece, both scanned: no rate is above one.
SELECT events_of('u1', 'both', 'US', '11@01 4@02 7@03'), events_of('c1', 'both', 'CA', '11@01 4@02');
SELECT mailed_rate, in_transit_rate, responded_rate FROM campaign_funnel WHERE campaign_id = 'both';
SELECT country, in_transit_rate FROM campaign_funnel_by_country WHERE campaign_id = 'both' ORDER BY 1;

-- A piece was sent if it was mailed or scanned, whatever its current status.
SELECT events_of('s1', 'sent', 'US', '11@01 2@02'), events_of('s2', 'sent', 'US', '11@01 2@02 10@03'), events_of('s3', 'sent', 'US', '10@01'),
       events_of('s4', 'sent', 'US', '4@01'), events_of('s5', 'sent', 'US', '8@01');
SELECT piece_id, status, was_sent(p), is_tracked(p) FROM pieces AS p WHERE campaign_id = 'sent' ORDER BY 1;
SELECT re_routed_rate, purl_completed_rate FROM campaign_funnel WHERE campaign_id = 'sent';

-- A visit before the mailing, as by a wrong clock or a test, has no number of days.
SELECT events_of('v1', 'visited', 'US', '7@01 11@05'), events_of('v2', 'visited', 'US', '11@05 7@08');
SELECT visitors, visitors_rate, completers_rate, median_days_to_visit FROM campaign_responses WHERE campaign_id = 'visited';

-- Bars count only the pieces to which a status applies.
SELECT events_of('m1', 'mixed', 'US', '11@01 6@05'), events_of('m2', 'mixed', 'CA', '11@01'), events_of('k1', 'canada', 'CA', '11@01');
SET client_encoding = 'SQL_ASCII';
SELECT campaign_id, campaign, account, pieces, mailed, processed FROM campaign_progress WHERE campaign_id IN ('mixed', 'canada') ORDER BY 1;
RESET client_encoding;

-- Pieces that have waited too long count as missed, not as stuck.
SELECT count(*) FROM ingest((SELECT json_agg(json_build_object('mailId', 'w' || age, 'eventType', 4, 'eventDate', now() - make_interval(days => age), 'campaignId', 'w'))
                             FROM unnest('{5,40,59,61,81}'::int[]) AS age));
SELECT piece_id FROM stuck_pieces('10 days', 'w') ORDER BY 1;
SELECT piece_id FROM stuck_pieces('10 days', 'w', younger_than => '30 days') ORDER BY 1;
SELECT piece_id FROM stuck_pieces('10 days', 'w', younger_than => NULL) ORDER BY 1;

-- A piece is late once the expected day has ended in the recipient's time zone.
SELECT inserted
FROM ingest((SELECT json_agg(json_build_object('mailId', 'late ' || zip || hour, 'eventType', 6, 'eventDate', '2026-10-10T' || hour || ':00:00Z',
                                               'expectedDeliveryDate', '2026-10-09T00:00:00Z', 'to', json_build_object('zip', zip)))
             FROM unnest('{96813,10001}'::text[]) AS zip, unnest('{03,05,09,11}'::text[]) AS hour));
SELECT p.piece_id, late_after(p), j.note
FROM pieces AS p
CROSS JOIN LATERAL journey(p.piece_id) AS j
WHERE p.piece_id LIKE 'late%' AND j.status = 'ProcessedForDelivery'
ORDER BY 1;
SELECT expected_day('2026-10-09'), expected_day('2026-10-09T00:00:00-04:00');
SELECT postalytics.configure('feed_time_zone', 'America/New_York');
SELECT expected_day('2026-10-09'), expected_day('2026-10-09T00:00:00-04:00');
SELECT postalytics.configure('feed_time_zone', NULL);

-- Reports on what remains after months are retired.
SELECT events_of('r1', 'retired', 'US', '11@01 4@02 7@03 7@04 8@05 3@06'), events_of('r2', 'retired', 'US', '11@01 4@02 2@03');
SELECT ingest('{"mailId": "r1", "eventType": 7, "eventDate": "2026-11-02"}');
DROP TABLE events_2026_10;
SELECT status_as_of('r1', '2026-10-02'), status_as_of('r1', '2026-10-07'), status_as_of('r2', '2026-10-02 12:00'), status_as_of('r2', '2026-09-01');
SELECT status, reached, at FROM funnel('retired', '2026-10-02') WHERE reached > 0;
SELECT day, visits, visitors, completions FROM responses_by_day WHERE campaign_id = 'retired' ORDER BY 1;
SELECT piece_id, status, occurred_at, error_code FROM returned_mail WHERE campaign_id = 'retired' ORDER BY 1;

SET client_min_messages = warning;
DROP EXTENSION postalytics_status CASCADE;
