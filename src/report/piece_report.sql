/*
 * piece_report.sql
 *		Reports on single pieces.  They read events for what pieces does not hold.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.raise_several_accounts(piece_id text)
RETURNS postalytics.mail_status
LANGUAGE plpgsql
STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'piece "%" exists in more than one account', piece_id
        USING ERRCODE = 'cardinality_violation',
              HINT = 'Specify the account as an argument.';
END
$$;
COMMENT ON FUNCTION postalytics.raise_several_accounts(text) IS
    'internal: raise the error that a piece exists in more than one account';

-- If a piece has no event after as_of, its current status is returned.  If events are
-- retired, the row of the piece still has the first time of each status, but not later
-- times.  A piece that was re-routed more than once may therefore show the status after
-- the first re-routing.  Errors: 21000 if account is NULL and the caller can see the
-- piece in more than one account.
CREATE FUNCTION postalytics.status_as_of(piece_id text, as_of timestamptz, account text DEFAULT NULL)
RETURNS postalytics.mail_status
LANGUAGE sql
STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT CASE
           WHEN EXISTS (SELECT
                        FROM postalytics.pieces AS o
                        WHERE status_as_of.account IS NULL
                          AND o.piece_id = p.piece_id
                          AND o.account <> p.account)
           THEN postalytics.raise_several_accounts(p.piece_id)
           WHEN p.last_event_at <= as_of THEN p.status
           ELSE (SELECT postalytics.current_status(e.status, e.occurred_at)
                 FROM (SELECT e.status, e.occurred_at
                       FROM postalytics.events AS e
                       WHERE (e.piece_id, e.account) = (p.piece_id, p.account)
                       UNION ALL
                       SELECT s.status, postalytics.reached_at(p, s.status)
                       FROM postalytics.statuses AS s) AS e
                 WHERE e.occurred_at <= as_of)
       END
FROM postalytics.pieces AS p
WHERE p.piece_id = status_as_of.piece_id
  AND (status_as_of.account IS NULL OR p.account = status_as_of.account)
LIMIT 1
$$;
COMMENT ON FUNCTION postalytics.status_as_of(text, timestamptz, text) IS
    'status of a piece at a time; NULL if the piece had no status then; in retired months only the first event of each status counts';

CREATE TYPE postalytics.journey_row AS (
    occurred_at timestamptz,
    label text,
    days numeric,
    note text,
    status postalytics.mail_status,
    account text
);
COMMENT ON TYPE postalytics.journey_row IS
    'a step in the journey of a piece';
COMMENT ON COLUMN postalytics.journey_row.occurred_at IS 'time of the event; NULL for a status without an event';
COMMENT ON COLUMN postalytics.journey_row.label IS 'display form of the status';
COMMENT ON COLUMN postalytics.journey_row.days IS 'days since the previous event';
COMMENT ON COLUMN postalytics.journey_row.note IS 'not reported, awaited, "awaited, late" or, for a piece processed after its expected delivery day, late; otherwise NULL';
COMMENT ON COLUMN postalytics.journey_row.status IS 'status';
COMMENT ON COLUMN postalytics.journey_row.account IS 'account of the piece; empty if none was given';

-- The column days is the time since the previous event.  If all events of a status are
-- retired, the time at which the piece first reached the status is used instead.
CREATE FUNCTION postalytics.journey(piece_id text, account text DEFAULT NULL)
RETURNS SETOF postalytics.journey_row
LANGUAGE sql
STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
SELECT n.occurred_at, postalytics.label(n.status), n.days, n.note, n.status, p.account
FROM postalytics.pieces AS p
CROSS JOIN LATERAL (
    WITH event AS (
        SELECT e.status, e.occurred_at
        FROM postalytics.events AS e
        WHERE (e.piece_id, e.account) = (p.piece_id, p.account)
    ), seen AS (
        SELECT s.status, s.occurred_at,
               lag(s.occurred_at) OVER (ORDER BY s.occurred_at, s.status) AS before
        FROM (
            SELECT e.status, e.occurred_at
            FROM event AS e
            UNION ALL
            SELECT s.status, r.reached_at
            FROM postalytics.statuses AS s
            CROSS JOIN LATERAL postalytics.reached_at(p, s.status) AS r (reached_at)
            WHERE r.reached_at IS NOT NULL
              AND NOT EXISTS (SELECT FROM event AS e WHERE e.status = s.status)
        ) AS s
    ), unseen AS (
        SELECT s.status,
               (SELECT min(e.occurred_at) FROM seen AS e WHERE e.status OPERATOR(postalytics.>>) s.status) AS by
        FROM postalytics.statuses AS s
        WHERE s.status IN ('MailPieceCreated', 'Mailed', 'InTransit', 'InLocalArea', 'ProcessedForDelivery')
          AND postalytics.applies_in(s.status, p.country) IS NOT FALSE
          AND NOT EXISTS (SELECT FROM seen AS e WHERE e.status = s.status)
          AND (p.status = 'ReturnedToSender') IS NOT TRUE
    )
    SELECT e.occurred_at, e.status, e.occurred_at AS place,
           round(extract(epoch FROM e.occurred_at - e.before) / 86400, 1) AS days,
           CASE
               WHEN e.status = 'ProcessedForDelivery' AND e.occurred_at >= postalytics.late_after(p)
               THEN 'late'
           END AS note
    FROM seen AS e
    UNION ALL
    SELECT NULL, u.status, COALESCE(u.by, 'infinity'), NULL,
           CASE
               WHEN u.by IS NOT NULL THEN 'not reported'
               WHEN postalytics.late_after(p) <= now() THEN 'awaited, late'
               ELSE 'awaited'
           END
    FROM unseen AS u
) AS n
WHERE p.piece_id = journey.piece_id
  AND (journey.account IS NULL OR p.account = journey.account)
ORDER BY p.account, n.place, n.occurred_at IS NOT NULL, n.status
$$;
COMMENT ON FUNCTION postalytics.journey(text, text) IS
    'journey of a piece, for people to read: its events in order, the days between them, and what is missing, awaited or late; for one account, or each account that has the piece';

CREATE TYPE postalytics.stuck_piece AS (
    piece_id text,
    campaign_id text,
    account text,
    contact_id text,
    country text,
    status postalytics.mail_status,
    status_at timestamptz,
    awaited postalytics.mail_status,
    stuck_for interval,
    usual interval
);
COMMENT ON TYPE postalytics.stuck_piece IS
    'a piece that should have moved on';
COMMENT ON COLUMN postalytics.stuck_piece.piece_id IS 'piece';
COMMENT ON COLUMN postalytics.stuck_piece.campaign_id IS 'campaign of the piece';
COMMENT ON COLUMN postalytics.stuck_piece.account IS 'account of the piece; empty if none was given';
COMMENT ON COLUMN postalytics.stuck_piece.contact_id IS 'contact of the piece';
COMMENT ON COLUMN postalytics.stuck_piece.country IS 'country of the recipient';
COMMENT ON COLUMN postalytics.stuck_piece.status IS 'current status';
COMMENT ON COLUMN postalytics.stuck_piece.status_at IS 'time of the last event of the current status';
COMMENT ON COLUMN postalytics.stuck_piece.awaited IS 'status that should follow';
COMMENT ON COLUMN postalytics.stuck_piece.stuck_for IS 'time since status_at';
COMMENT ON COLUMN postalytics.stuck_piece.usual IS 'limit that was exceeded: older_than, or the time within which 95% of the pieces of the campaign moved on';

-- A piece with a response is not stuck: it has been delivered, regardless of its scans.
--
-- A piece that has been at its status for longer than younger_than is left out, because
-- it is assumed to have moved on without a scan.  If younger_than is NULL, no piece is
-- left out for this reason.
--
-- The usual time at a status is the 95th percentile over the pieces of the same
-- campaign that have moved on from the status, if there are at least 20 such pieces.
-- It is computed only for statuses at which pieces are waiting.  These times are looked
-- up in a map, because the plan of a join would depend on an estimate of the number of
-- stuck pieces.  The front of a cluster passes this map, which it computes for all slots in
-- the same way (usual_stays in cluster/report.sql).
CREATE FUNCTION postalytics.stuck_pieces_by(older_than interval, campaign text, younger_than interval, account text, usual jsonb)
RETURNS SETOF postalytics.stuck_piece
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
      AND (campaign IS NULL OR p.campaign_id = campaign OR p.drop_id = campaign)
      AND (stuck_pieces_by.account IS NULL OR p.account = stuck_pieces_by.account)
      AND (p.status OPERATOR(postalytics.<<) 'Mailed' OR postalytics.applies_in('InTransit', p.country) IS NOT FALSE)
), stay AS (
    SELECT w.account, w.campaign_id, w.status,
           percentile_cont(0.95) WITHIN GROUP (ORDER BY s.left_at - s.reached_at) AS usual
    FROM (SELECT DISTINCT w.account, w.campaign_id, w.status FROM waiting AS w WHERE older_than IS NULL) AS w
    JOIN postalytics.pieces AS p ON (p.campaign_id, p.account) = (w.campaign_id, w.account)
    CROSS JOIN LATERAL (
        SELECT postalytics.reached_at(p, w.status) AS reached_at,
               postalytics.left_at(p, w.status) AS left_at
    ) AS s
    WHERE s.left_at > s.reached_at
    GROUP BY w.account, w.campaign_id, w.status
    HAVING count(*) >= 20
), stays AS (
    SELECT jsonb_object_agg(ROW(s.account, s.campaign_id, s.status)::text, s.usual) AS map
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
    SELECT COALESCE(older_than, (COALESCE(stuck_pieces_by.usual, (SELECT s.map FROM stays AS s)) ->> ROW(w.account, w.campaign_id, w.status)::text)::interval) AS usual
) AS u
WHERE now() - w.status_at > u.usual
ORDER BY w.status_at
$$;
COMMENT ON FUNCTION postalytics.stuck_pieces_by(interval, text, interval, text, jsonb) IS
    'internal: as stuck_pieces, with the usual time by account, campaign and status; if usual is NULL, it is computed';

CREATE FUNCTION postalytics.stuck_pieces(
    older_than interval DEFAULT NULL,
    campaign text DEFAULT NULL,
    younger_than interval DEFAULT '60 days',
    account text DEFAULT NULL)
RETURNS SETOF postalytics.stuck_piece
LANGUAGE sql
STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT *
    FROM postalytics.stuck_pieces_by(older_than, campaign, younger_than, account, NULL)
$$;
COMMENT ON FUNCTION postalytics.stuck_pieces(interval, text, interval, text) IS
    'pieces that should have moved on: they have been at their status longer than older_than (by default, longer than 95% of the pieces of the campaign were), but no longer than younger_than';

CREATE VIEW postalytics.returned_mail
WITH (security_invoker = true) AS
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
       d.phone,
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
        WHERE (e.piece_id, e.account) = (p.piece_id, p.account)
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
    'returned and re-routed pieces, with the error code and address in the latest event of the status; they are NULL once the month of the event is retired';
COMMENT ON COLUMN postalytics.returned_mail.piece_id IS 'piece';
COMMENT ON COLUMN postalytics.returned_mail.campaign_id IS 'campaign of the piece';
COMMENT ON COLUMN postalytics.returned_mail.account IS 'account of the piece; empty if none was given';
COMMENT ON COLUMN postalytics.returned_mail.contact_id IS 'contact of the piece';
COMMENT ON COLUMN postalytics.returned_mail.status IS 'ReturnedToSender or ReRouted';
COMMENT ON COLUMN postalytics.returned_mail.occurred_at IS 'time of the latest event of the status';
COMMENT ON COLUMN postalytics.returned_mail.first_name IS 'first name of the recipient';
COMMENT ON COLUMN postalytics.returned_mail.last_name IS 'last name of the recipient';
COMMENT ON COLUMN postalytics.returned_mail.company IS 'company of the recipient';
COMMENT ON COLUMN postalytics.returned_mail.email IS 'e-mail address of the recipient';
COMMENT ON COLUMN postalytics.returned_mail.phone IS 'phone number in the event';
COMMENT ON COLUMN postalytics.returned_mail.error_code IS 'error code in the event';
COMMENT ON COLUMN postalytics.returned_mail.error_description IS 'description of the error in the event';
COMMENT ON COLUMN postalytics.returned_mail.address_updated IS 'true if the event says that the address was updated';
COMMENT ON COLUMN postalytics.returned_mail.address IS 'street address in the event';
COMMENT ON COLUMN postalytics.returned_mail.address2 IS 'second line of the address in the event';
COMMENT ON COLUMN postalytics.returned_mail.city IS 'city in the event';
COMMENT ON COLUMN postalytics.returned_mail.state IS 'state in the event';
COMMENT ON COLUMN postalytics.returned_mail.zip IS 'ZIP code in the event';
COMMENT ON COLUMN postalytics.returned_mail.country IS 'country of the recipient';
COMMENT ON COLUMN postalytics.returned_mail.fields IS 'the mailing list''s own fields';
