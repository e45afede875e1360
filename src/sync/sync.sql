/*
 * sync.sql
 *		syncs: which events a CRM is to be told of, and on which channel.
 */

-- Errors: 22023 for a text that is no spelling of a status.
CREATE FUNCTION postalytics.to_mail_statuses(statuses text[])
RETURNS postalytics.mail_status[]
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    spelling text;
    known postalytics.mail_status[];
BEGIN
    IF statuses IS NULL THEN
        RETURN NULL;
    END IF;
    known := '{}';
    FOREACH spelling IN ARRAY statuses LOOP
        IF postalytics.to_mail_status(spelling) IS NULL AND spelling IS NOT NULL THEN
            RAISE EXCEPTION 'unknown status "%"', spelling
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Valid statuses and their labels are listed in postalytics.statuses.';
        END IF;
        known := known || postalytics.to_mail_status(spelling);
    END LOOP;
    RETURN known;
END
$$;
COMMENT ON FUNCTION postalytics.to_mail_statuses(text[]) IS
    'internal: statuses from any of their spellings';

-- False for a value that users have added to the enum.
CREATE FUNCTION postalytics.are_known_statuses(statuses postalytics.mail_status[])
RETURNS boolean
LANGUAGE sql
IMMUTABLE
BEGIN ATOMIC
    SELECT pg_catalog.bool_and(postalytics.to_mail_status(s.status::text) IS NOT NULL)
    FROM pg_catalog.unnest(statuses) AS s (status);
END;
COMMENT ON FUNCTION postalytics.are_known_statuses(postalytics.mail_status[]) IS
    'internal: true if all are statuses of the lifecycle';

CREATE TABLE postalytics.syncs (
    name text NOT NULL PRIMARY KEY
        CHECK (name <> '' AND pg_catalog.octet_length(name) <= 63),
    channel text NOT NULL
        CHECK (channel <> '' AND pg_catalog.octet_length(channel) <= 63),
    enabled boolean NOT NULL,
    campaigns text[]
        CHECK (pg_catalog.cardinality(campaigns) > 0 AND pg_catalog.array_position(campaigns, NULL) IS NULL),
    accounts text[]
        CHECK (pg_catalog.cardinality(accounts) > 0 AND pg_catalog.array_position(accounts, NULL) IS NULL),
    statuses postalytics.mail_status[]
        CHECK (pg_catalog.cardinality(statuses) > 0 AND pg_catalog.array_position(statuses, NULL) IS NULL
               AND postalytics.are_known_statuses(statuses)),
    wait interval NOT NULL
        CHECK (wait BETWEEN '0' AND '100 years'),
    unless postalytics.mail_status[]
        CHECK (pg_catalog.cardinality(unless) > 0 AND pg_catalog.array_position(unless, NULL) IS NULL
               AND postalytics.are_known_statuses(unless)),
    latest_only boolean NOT NULL,
    ordered boolean NOT NULL,
    durable boolean NOT NULL,
    max_attempts integer NOT NULL
        CHECK (max_attempts > 0),
    workers name[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE postalytics.syncs IS
    'what a Zap is elsewhere: which events a CRM is told of, and how; see create_sync';
COMMENT ON COLUMN postalytics.syncs.channel IS 'what to LISTEN to';
COMMENT ON COLUMN postalytics.syncs.enabled IS 'while off, new events make no deliveries and fetch gives none';
COMMENT ON COLUMN postalytics.syncs.campaigns IS 'campaign ids; NULL for every campaign';
COMMENT ON COLUMN postalytics.syncs.accounts IS 'accounts; NULL for every account';
COMMENT ON COLUMN postalytics.syncs.statuses IS 'statuses; NULL for every status';
COMMENT ON COLUMN postalytics.syncs.wait IS 'from an event''s instant until its delivery is due';
COMMENT ON COLUMN postalytics.syncs.unless IS 'a piece that has reached one of these statuses has its due deliveries cancelled';
COMMENT ON COLUMN postalytics.syncs.latest_only IS 'a delivery is superseded once the piece has a later one';
COMMENT ON COLUMN postalytics.syncs.ordered IS 'a piece''s deliveries are handed out one after the other, in order';
COMMENT ON COLUMN postalytics.syncs.durable IS 'with deliveries; else with notifications alone';
COMMENT ON COLUMN postalytics.syncs.max_attempts IS 'so many fetches without an ack make a delivery dead';
COMMENT ON COLUMN postalytics.syncs.workers IS 'roles that may fetch and ack, besides the owner; see grant_sync';

SELECT pg_catalog.pg_extension_config_dump('postalytics.syncs', '');

CREATE TRIGGER configuration_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON postalytics.syncs
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.configuration_changed();

-- Errors: 22023 and 22004 for what a sync cannot be.
CREATE FUNCTION postalytics.check_sync(sync postalytics.syncs)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF COALESCE(sync.name, '') = '' OR octet_length(sync.name) > 63 THEN
        RAISE EXCEPTION 'sync name must be between 1 and 63 bytes long'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF sync.channel = '' OR octet_length(sync.channel) > 63 THEN
        RAISE EXCEPTION 'channel name must be between 1 and 63 bytes long'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Name a channel: create_sync(..., channel => ''...'').';
    END IF;
    IF 0 IN (cardinality(sync.campaigns), cardinality(sync.accounts), cardinality(sync.statuses)) THEN
        RAISE EXCEPTION 'sync "%" would match nothing: a list of campaigns, accounts or statuses is empty', sync.name
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Leave the list out to match all.';
    END IF;
    IF cardinality(sync.unless) = 0 THEN
        RAISE EXCEPTION 'the list "unless" of sync "%" is empty', sync.name
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Leave it out to cancel nothing.';
    END IF;
    IF array_position(sync.campaigns, NULL) IS NOT NULL
       OR array_position(sync.accounts, NULL) IS NOT NULL
       OR array_position(sync.statuses, NULL) IS NOT NULL
       OR array_position(sync.unless, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'a list of sync "%" holds NULL', sync.name
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF num_nulls(sync.enabled, sync.wait, sync.latest_only, sync.ordered, sync.durable, sync.max_attempts) > 0 THEN
        RAISE EXCEPTION 'a setting of sync "%" is NULL', sync.name
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF sync.wait < '0' OR sync.wait > '100 years' THEN
        RAISE EXCEPTION 'sync "%" cannot wait for %', sync.name, sync.wait
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF sync.max_attempts < 1 THEN
        RAISE EXCEPTION 'max_attempts of sync "%" must be at least 1', sync.name
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT sync.durable AND (sync.wait > '0' OR sync.unless IS NOT NULL OR sync.latest_only) THEN
        RAISE EXCEPTION 'sync "%" is not durable, so it has no deliveries that could wait', sync.name
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Leave out wait, unless and latest_only, or durable => false.';
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.check_sync(postalytics.syncs) IS
    'internal: an error for what a sync cannot be';

-- A sync for a campaign that does not exist matches nothing, and no error would
-- show it.  A notice may be about a name that was given instead of an id.
CREATE FUNCTION postalytics.check_campaigns(sync postalytics.syncs)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unknown text;
    ids text;
BEGIN
    FOREACH unknown IN ARRAY COALESCE(sync.campaigns, '{}') LOOP
        IF NOT EXISTS (SELECT FROM postalytics.campaigns AS c WHERE c.campaign_id = unknown) THEN
            SELECT string_agg(c.campaign_id, ', ' ORDER BY c.campaign_id)
            INTO ids
            FROM postalytics.campaigns AS c
            WHERE c.name = unknown;
            RAISE NOTICE 'no event of campaign "%" has arrived, which sync "%" names', unknown, sync.name
                USING HINT = 'The argument "campaigns" takes campaign ids, not names. '
                          || COALESCE('Campaigns with this name have the ids: ' || ids || '.',
                                      'Known ids are listed in postalytics.campaigns.');
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.check_campaigns(postalytics.syncs) IS
    'internal: a notice for each campaign of a sync of which nothing is known';

-- Statuses can be given in any spelling.  With since, waits for transactions
-- that have written events, and blocks new writers until the transaction ends:
-- EXCLUSIVE on syncs, which conflicts with the ROW SHARE of writers.  So each
-- event is either filled in or matched, never both.  Errors: those of check_sync
-- and to_mail_statuses; 42710 if the name is taken; with since also 25001 unless
-- the transaction is READ COMMITTED, and 55P03 if the lock is not available
-- within 10 seconds.
CREATE FUNCTION postalytics.create_sync(
    name text,
    campaigns text[] DEFAULT NULL,
    accounts text[] DEFAULT NULL,
    statuses text[] DEFAULT NULL,
    wait interval DEFAULT '0',
    unless text[] DEFAULT NULL,
    latest_only boolean DEFAULT false,
    ordered boolean DEFAULT true,
    durable boolean DEFAULT true,
    max_attempts integer DEFAULT 25,
    channel text DEFAULT NULL,
    enabled boolean DEFAULT true,
    since timestamptz DEFAULT NULL)
RETURNS postalytics.syncs
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    new postalytics.syncs;
BEGIN
    PERFORM postalytics.check_not_distributed();
    new.name := create_sync.name;
    new.channel := COALESCE(create_sync.channel, 'postalytics_' || create_sync.name);
    new.enabled := create_sync.enabled;
    new.campaigns := create_sync.campaigns;
    new.accounts := create_sync.accounts;
    new.statuses := postalytics.to_mail_statuses(create_sync.statuses);
    new.wait := create_sync.wait;
    new.unless := postalytics.to_mail_statuses(create_sync.unless);
    new.latest_only := create_sync.latest_only;
    new.ordered := create_sync.ordered;
    new.durable := create_sync.durable;
    new.max_attempts := create_sync.max_attempts;
    new.workers := '{}';
    PERFORM postalytics.check_sync(new);
    IF since IS NOT NULL THEN
        IF NOT new.durable THEN
            RAISE EXCEPTION 'sync "%" is not durable, so it has no deliveries to fill in', new.name
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        PERFORM postalytics.check_read_committed('create_sync with since');
        PERFORM postalytics.lock_briefly('postalytics.syncs', 'EXCLUSIVE');
    END IF;
    INSERT INTO postalytics.syncs
    SELECT new.*
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'sync "%" already exists', new.name
            USING ERRCODE = 'duplicate_object',
                  HINT = 'To change it, UPDATE its row in postalytics.syncs.';
    END IF;
    PERFORM postalytics.check_campaigns(new);
    IF since IS NOT NULL THEN
        PERFORM postalytics.owe(new, since, 'infinity');
    END IF;
    RETURN new;
END
$$;
COMMENT ON FUNCTION postalytics.create_sync(text, text[], text[], text[], interval, text[], boolean, boolean, boolean, integer, text, boolean, timestamptz) IS
    'create a sync: its events are announced on its channel and become deliveries; with since, stored events too';

-- Allows arrays of mail_status to be passed to create_sync.
CREATE CAST (postalytics.mail_status[] AS text[])
WITH INOUT
AS IMPLICIT;

-- Locks the sync's row, so that it stays.  Errors: 42704 where there is none.
CREATE FUNCTION postalytics.find_sync(name text)
RETURNS postalytics.syncs
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sync postalytics.syncs;
BEGIN
    PERFORM postalytics.check_not_distributed();
    SELECT s.*
    INTO sync
    FROM postalytics.syncs AS s
    WHERE s.name = find_sync.name
    FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'sync "%" does not exist', name
            USING ERRCODE = 'undefined_object',
                  HINT = 'The syncs are in postalytics.syncs.';
    END IF;
    RETURN sync;
END
$$;
COMMENT ON FUNCTION postalytics.find_sync(text) IS
    'internal: the sync of that name, locked, or an error';

-- Wakes the sync's workers, for something may have waited.  Errors: 42704.
CREATE FUNCTION postalytics.enable_sync(name text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sync postalytics.syncs := postalytics.find_sync(name);
BEGIN
    UPDATE postalytics.syncs AS s
    SET enabled = true
    WHERE s.name = sync.name;
    PERFORM postalytics.wake(sync, w.waiting)
    FROM (SELECT count(*) AS waiting
          FROM postalytics.deliveries_unfinished AS d
          WHERE d.sync = sync.name
            AND d.due_at < 'infinity') AS w
    WHERE w.waiting > 0;
END
$$;
COMMENT ON FUNCTION postalytics.enable_sync(text) IS
    'turn a sync on: it goes on with the deliveries it had';

-- Errors: 42704.
CREATE FUNCTION postalytics.disable_sync(name text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sync postalytics.syncs := postalytics.find_sync(name);
BEGIN
    UPDATE postalytics.syncs AS s
    SET enabled = false
    WHERE s.name = sync.name;
END
$$;
COMMENT ON FUNCTION postalytics.disable_sync(text) IS
    'turn a sync off: new events make no deliveries, and fetch gives none; those it has stay';

-- Waits for transactions that hold the sync's deliveries, then for transactions
-- that have written events, but does not block new writers while it waits.
-- Locks: the sync's row, its unfinished deliveries in the order of delivery_id,
-- then EXCLUSIVE on syncs.  Errors: 42704 if there is no such sync, 55P03 if the
-- table lock is not available within 10 seconds, 25001 unless the transaction is
-- READ COMMITTED.
CREATE FUNCTION postalytics.drop_sync(name text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM postalytics.check_read_committed('drop_sync');
    PERFORM postalytics.find_sync(name);
    PERFORM
    FROM postalytics.deliveries_unfinished AS d
    WHERE d.sync = drop_sync.name
    ORDER BY d.delivery_id
    FOR UPDATE;
    PERFORM postalytics.lock_briefly('postalytics.syncs', 'EXCLUSIVE');
    DELETE FROM postalytics.syncs AS s
    WHERE s.name = drop_sync.name;
    PERFORM postalytics.delete_deliveries(name);
END
$$;
COMMENT ON FUNCTION postalytics.drop_sync(text) IS
    'drop a sync and its deliveries, including those that workers hold';
