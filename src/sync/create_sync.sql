/*
 * create_sync.sql
 *		Functions that create, enable, disable and drop syncs.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- Errors: 22023 and 22004 if the sync is not valid.
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
    IF 0 IN (cardinality(sync.campaigns), cardinality(sync.accounts))
       OR cardinality(sync.statuses) = 0 AND NOT sync.errors THEN
        RAISE EXCEPTION 'sync "%" would match no events', sync.name
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'A list of campaigns, accounts or statuses is empty.',
                  HINT = 'Omit the list to match all, or use errors => true with empty statuses for production errors only.';
    END IF;
    IF cardinality(sync.unless) = 0 THEN
        RAISE EXCEPTION 'list "unless" of sync "%" must not be empty', sync.name
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Omit "unless" if no deliveries are to be cancelled.';
    END IF;
    IF array_position(sync.campaigns, NULL) IS NOT NULL
       OR array_position(sync.accounts, NULL) IS NOT NULL
       OR array_position(sync.statuses, NULL) IS NOT NULL
       OR array_position(sync.unless, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'lists of sync "%" must not contain NULL', sync.name
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF num_nulls(sync.enabled, sync.wait, sync.latest_only, sync.ordered, sync.durable, sync.max_attempts,
                 sync.notify_events, sync.per, sync.errors) > 0 THEN
        RAISE EXCEPTION 'options of sync "%" must not be NULL', sync.name
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF sync.wait < '0' OR sync.wait > '100 years' THEN
        RAISE EXCEPTION '"wait" of sync "%" must be between 0 and 100 years', sync.name
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF sync.max_attempts < 1 THEN
        RAISE EXCEPTION '"max_attempts" of sync "%" must be at least 1', sync.name
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF least(sync.rate, sync.max_leased, sync.breaker) < 1 THEN
        RAISE EXCEPTION 'rate, max_leased and breaker of sync "%" must be at least 1', sync.name
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Omit them for no limit.';
    END IF;
    IF sync.per < '1 millisecond' OR sync.per > '31 days' THEN
        RAISE EXCEPTION '"per" of sync "%" must be between 1 millisecond and 31 days', sync.name
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT sync.durable AND (sync.wait > '0' OR sync.unless IS NOT NULL OR sync.latest_only
                             OR num_nonnulls(sync.rate, sync.max_leased, sync.breaker) > 0) THEN
        RAISE EXCEPTION 'sync "%" must be durable to use wait, unless, latest_only, rate, max_leased or breaker', sync.name
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Omit these options, or omit durable => false.';
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.check_sync(postalytics.syncs) IS
    'internal: raise an error if a sync is not valid';

-- A sync for a campaign that does not exist matches nothing, and raises no error.
-- The hint of the notice is also for users who pass the name of a campaign.
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
        IF NOT EXISTS (SELECT FROM postalytics.campaigns AS c WHERE c.campaign_id = unknown)
            AND NOT EXISTS (SELECT FROM postalytics.pieces AS p WHERE p.drop_id = unknown) THEN
            SELECT string_agg(c.campaign_id, ', ' ORDER BY c.campaign_id)
            INTO ids
            FROM postalytics.campaigns AS c
            WHERE c.name = unknown;
            RAISE NOTICE 'campaign "%" of sync "%" has no events yet', unknown, sync.name
                USING HINT = 'The argument "campaigns" takes ids of campaigns or drops, not names. '
                          || COALESCE('Campaigns with this name have the ids: ' || ids || '.',
                                      'Known ids are listed in postalytics.campaigns.');
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.check_campaigns(postalytics.syncs) IS
    'internal: raise a notice for each unknown campaign of a sync';

-- The account in a payload is ignored unless field_names maps its path, so a sync for
-- that account might never match.  Reads up to 10000 events of each of the 4 latest
-- partitions.
CREATE FUNCTION postalytics.check_accounts(sync postalytics.syncs)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    leaf regclass;
    stated text;
BEGIN
    FOR leaf IN
        SELECT l.leaf
        FROM postalytics.leaves('postalytics.events') AS l
        WHERE sync.accounts IS NOT NULL
          AND l.starts_at <= now()
        ORDER BY l.ends_at DESC
        LIMIT 4
    LOOP
        EXECUTE format('SELECT postalytics.payload_account(e.payload)
                        FROM (SELECT e.account, e.payload FROM %s AS e LIMIT 10000) AS e
                        WHERE e.account = ''''
                          AND postalytics.payload_account(e.payload) = ANY ($1)
                        LIMIT 1', leaf)
        INTO stated
        USING sync.accounts;
        IF stated IS NOT NULL THEN
            RAISE NOTICE 'account "%" of sync "%" appears only in payloads', stated, sync.name
                USING DETAIL = 'The account in a payload is ignored unless postalytics.field_names maps its path.',
                      HINT = 'Bind the role that ingests the events with grant_ingest, pass the account to ingest, or map its path in postalytics.field_names.';
            RETURN;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION postalytics.check_accounts(postalytics.syncs) IS
    'internal: raise a notice if an account of a sync appears only in payloads';

-- Statuses can be given in any spelling.
--
-- Locks: with since, EXCLUSIVE on syncs, which conflicts with the ROW SHARE lock of
-- writers of events.  The call waits for transactions that have written events, and
-- blocks other writers until its own transaction ends.  So the delivery of each event
-- is created either by this call or by the writer of the event, never by both.
--
-- Errors: those of check_sync and to_mail_statuses; 42710 if the name is taken; with
-- since also 25001 unless the transaction is READ COMMITTED, and 55P03 if the lock is
-- not available within 10 seconds.
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
    since timestamptz DEFAULT NULL,
    notify_events boolean DEFAULT false,
    rate integer DEFAULT NULL,
    per interval DEFAULT '1 second',
    max_leased integer DEFAULT NULL,
    breaker integer DEFAULT NULL,
    errors boolean DEFAULT false)
RETURNS postalytics.syncs
LANGUAGE plpgsql
SECURITY DEFINER
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
    new.notify_events := create_sync.notify_events;
    new.rate := create_sync.rate;
    new.per := create_sync.per;
    new.max_leased := create_sync.max_leased;
    new.breaker := create_sync.breaker;
    new.errors := create_sync.errors;
    PERFORM postalytics.check_sync(new);
    IF since IS NOT NULL THEN
        IF NOT new.durable THEN
            RAISE EXCEPTION 'cannot use "since" with sync "%", which is not durable', new.name
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
    -- A worker may have paused an earlier sync of this name while drop_sync ran.
    PERFORM postalytics.forget_limits(new.name);
    PERFORM postalytics.check_campaigns(new);
    PERFORM postalytics.check_accounts(new);
    IF since IS NOT NULL THEN
        PERFORM postalytics.make_deliveries(new, since, 'infinity');
    END IF;
    RETURN new;
END
$$;
COMMENT ON FUNCTION postalytics.create_sync(text, text[], text[], text[], interval, text[], boolean, boolean, boolean, integer, text, boolean, timestamptz, boolean, integer, interval, integer, integer, boolean) IS
    'create a sync: its events become deliveries, and notifications on its channel; with since, deliveries are also created for stored events';

-- Allows arrays of mail_status to be passed to create_sync.
CREATE CAST (postalytics.mail_status[] AS text[])
WITH INOUT
AS IMPLICIT;

-- Notifies the sync's workers, because deliveries may be waiting.  Errors: 42704 if
-- there is no such sync.
CREATE FUNCTION postalytics.enable_sync(name text)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sync postalytics.syncs := postalytics.find_sync(name);
BEGIN
    UPDATE postalytics.syncs AS s
    SET enabled = true
    WHERE s.name = sync.name;
    PERFORM postalytics.wake_waiting(sync.name);
END
$$;
COMMENT ON FUNCTION postalytics.enable_sync(text) IS
    'enable a sync, which continues with its existing deliveries';

CREATE FUNCTION postalytics.disable_sync(name text)
RETURNS void
LANGUAGE c
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_disable_sync';
COMMENT ON FUNCTION postalytics.disable_sync(text) IS
    'disable a sync: no deliveries are created for new events, and fetch returns none; existing deliveries are kept';

-- drop_sync has already locked the deliveries that existed when it began.  The lock
-- timeout limits the wait for later deliveries that other sessions have locked.
CREATE FUNCTION postalytics.delete_deliveries(sync text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
BEGIN
    DELETE FROM postalytics.deliveries AS d
    WHERE d.sync = delete_deliveries.sync;
END
$$;
COMMENT ON FUNCTION postalytics.delete_deliveries(text) IS
    'internal: delete the deliveries of a sync that is being dropped';

-- Waits for transactions that have locked deliveries of the sync, then for transactions
-- that have written events, but does not block new writers while it waits.
-- Locks: SHARE UPDATE EXCLUSIVE on syncs, the sync's row, its unfinished deliveries
-- in the order of delivery_id, then EXCLUSIVE on syncs.  Errors: 42704 if there is no
-- such sync, 55P03 if the table lock is not available within 10 seconds, 25001
-- unless the transaction is READ COMMITTED.
CREATE FUNCTION postalytics.drop_sync(name text)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM postalytics.check_read_committed('drop_sync');
    -- This mode conflicts with itself, but not with the lock of writers of events.
    LOCK TABLE postalytics.syncs IN SHARE UPDATE EXCLUSIVE MODE;
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
    PERFORM postalytics.forget_limits(name);
    PERFORM postalytics.audit('drop_sync', name, NULL, NULL);
END
$$;
COMMENT ON FUNCTION postalytics.drop_sync(text) IS
    'drop a sync and its deliveries, including leased ones';
