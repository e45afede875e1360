/*
 * setup.sql
 *		Creates two roles for Zapier's PostgreSQL app: zapier_in, which can only insert
 *		events, and zapier_out, which can only read the deliveries of sync zapier; and
 *		zapier_owner, which owns schema zapier and runs its function poll.  With
 *		-v account=5510, all are for one account, and their names begin with zapier_5510.
 *		Can be run again, by a superuser.
 *
 * Zapier's "New Row" remembers the largest id it has seen and asks for larger ones.  If
 * ids were assigned when events are written, rows would become visible out of order,
 * because transactions do not commit in the order of their ids, and Zapier would miss
 * some.  So ids are assigned when Zapier polls, to the events committed by then, and
 * only one poll runs at a time.
 */
\if :{?account}
\else
	\set account ''
\endif
SELECT name,
       name || '_in' AS incoming,
       name || '_out' AS outgoing,
       name || '_owner' AS owner
FROM concat_ws('_', 'zapier', NULLIF(:'account', '')) AS name
\gset

SELECT format('CREATE ROLE %I %s', n.role, n.option)
FROM (VALUES (:'incoming', 'LOGIN'), (:'outgoing', 'LOGIN'), (:'owner', 'NOLOGIN')) AS n (role, option)
WHERE NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = n.role)
\gexec
SELECT
FROM postalytics.create_sync(:'name', accounts => CASE WHEN :'account' <> '' THEN ARRAY[:'account'] END)
WHERE NOT EXISTS (SELECT FROM postalytics.syncs AS s WHERE s.name = :'name');
SELECT postalytics.grant_ingest(:'incoming', NULLIF(:'account', ''));

-- The function that fetches runs as a role that can do nothing else: it has this sync, and
-- owns this schema.
SELECT postalytics.grant_sync(:'owner', :'name');
SELECT format('CREATE SCHEMA %I AUTHORIZATION %I', :'name', :'owner')
WHERE NOT EXISTS (SELECT FROM pg_namespace AS n WHERE n.nspname = :'name')
\gexec
SET ROLE :"owner";
SET search_path = :"name";
SET client_min_messages = warning;

CREATE TABLE IF NOT EXISTS delivered (
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

-- Moves the due deliveries of the sync into delivered, and acknowledges them in the same
-- transaction.  Locks: EXCLUSIVE on delivered, so that polls wait for each other.
CREATE OR REPLACE FUNCTION poll()
RETURNS SETOF delivered
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = :"name", pg_temp
AS $$
DECLARE
    sync text := current_schema(); -- they have the same name
    fetched_ids bigint[];
BEGIN
    LOCK TABLE delivered IN EXCLUSIVE MODE;
    LOOP
        WITH delivery AS (
            SELECT *
            FROM postalytics.fetch(sync, 1000)
        ), moved AS (
            INSERT INTO delivered (piece_id, status, occurred_at, account, campaign_id, campaign_name, contact_id,
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
        PERFORM postalytics.ack(sync, fetched_ids);
    END LOOP;
    DELETE FROM delivered AS t
    WHERE t.delivered_at < now() - '7 days'::interval;
    RETURN QUERY
    SELECT *
    FROM delivered AS t
    ORDER BY t.id DESC;
END
$$;
REVOKE EXECUTE ON FUNCTION poll() FROM PUBLIC;

CREATE OR REPLACE VIEW mail_events AS
SELECT *
FROM poll();
COMMENT ON VIEW mail_events IS 'events delivered in the last seven days, newest first, for "New Row" ordered by id';

GRANT USAGE ON SCHEMA :"name" TO :"outgoing";
GRANT EXECUTE ON FUNCTION poll() TO :"outgoing";
GRANT SELECT ON mail_events TO :"outgoing";
RESET ROLE;
RESET search_path;
RESET client_min_messages;
