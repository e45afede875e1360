/*
 * setup.sql
 *		Creates two roles for Zapier's PostgreSQL app: one that can only insert
 *		events, and one that can only read the deliveries of a sync.
 *
 * Zapier's "New Row" remembers the largest id it has seen and asks for larger ones.  If
 * ids were assigned when events are written, rows would become visible out of order,
 * because transactions do not commit in the order of their ids, and Zapier would miss
 * some.  So ids are assigned when Zapier polls, to the events committed by then, and
 * only one poll runs at a time.
 */
CREATE ROLE zapier_in LOGIN PASSWORD 'change me';
SELECT postalytics.grant_ingest('zapier_in');

CREATE ROLE zapier_out LOGIN PASSWORD 'change me, too';
SELECT postalytics.create_sync('zapier');
SELECT postalytics.grant_sync('zapier_out', 'zapier');

CREATE SCHEMA zapier;
GRANT USAGE ON SCHEMA zapier TO zapier_out;

CREATE TABLE zapier.delivered (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivered_at timestamptz NOT NULL DEFAULT now(),
    piece_id text NOT NULL,
    status text NOT NULL,
    occurred_at timestamptz NOT NULL,
    account text,
    campaign_id text,
    campaign_name text,
    contact_id text,
    first_name text,
    last_name text,
    company text,
    email text,
    country text,
    fields jsonb
);

-- Moves the due deliveries of the sync into zapier.delivered, and acknowledges them in the
-- same transaction.  Locks: EXCLUSIVE on zapier.delivered, so that polls wait for each other.
CREATE FUNCTION zapier.poll()
RETURNS SETOF zapier.delivered
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fetched_ids bigint[];
BEGIN
    LOCK TABLE zapier.delivered IN EXCLUSIVE MODE;
    LOOP
        WITH delivery AS (
            SELECT *
            FROM postalytics.fetch('zapier', 1000)
        ), moved AS (
            INSERT INTO zapier.delivered (piece_id, status, occurred_at, account, campaign_id, campaign_name, contact_id,
                                     first_name, last_name, company, email, country, fields)
            SELECT d.piece_id, d.label, d.occurred_at, d.account, d.campaign_id, d.campaign_name, d.contact_id,
                   d.first_name, d.last_name, d.company, d.email, d.country, d.fields
            FROM delivery AS d
            ORDER BY d.occurred_at, d.delivery_id
        )
        SELECT array_agg(d.delivery_id)
        INTO fetched_ids
        FROM delivery AS d;
        EXIT WHEN fetched_ids IS NULL;
        PERFORM postalytics.ack('zapier', fetched_ids);
    END LOOP;
    DELETE FROM zapier.delivered AS t
    WHERE t.delivered_at < now() - '7 days'::interval;
    RETURN QUERY
    SELECT *
    FROM zapier.delivered AS t
    ORDER BY t.id DESC;
END
$$;
REVOKE EXECUTE ON FUNCTION zapier.poll() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION zapier.poll() TO zapier_out;

CREATE VIEW zapier.mail_events AS
SELECT *
FROM zapier.poll();
GRANT SELECT ON zapier.mail_events TO zapier_out;
COMMENT ON VIEW zapier.mail_events IS 'events delivered to sync zapier in the last seven days, newest first, for "New Row" ordered by id';
