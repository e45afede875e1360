/*
 * sync.sql
 *		The table syncs: which events are delivered to a CRM, and how.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- Errors: 22023 for a text that is not a spelling of a status.
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
    'internal: convert statuses from any of their spellings';

-- False if one of the values was added to the enum by users.
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
        CHECK (pg_catalog.array_position(statuses, NULL) IS NULL
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
    notify_events boolean NOT NULL DEFAULT false,
    rate integer
        CHECK (rate > 0),
    per interval NOT NULL DEFAULT '1 second'
        CHECK (per BETWEEN '1 millisecond' AND '31 days'),
    max_leased integer
        CHECK (max_leased > 0),
    breaker integer
        CHECK (breaker > 0),
    errors boolean NOT NULL DEFAULT false,
    CHECK (pg_catalog.cardinality(statuses) > 0 OR errors)
);
COMMENT ON TABLE postalytics.syncs IS
    'syncs, each like a Zap: which events are delivered to a CRM, and how; see create_sync';
COMMENT ON COLUMN postalytics.syncs.name IS 'name of the sync';
COMMENT ON COLUMN postalytics.syncs.channel IS 'notification channel, for LISTEN';
COMMENT ON COLUMN postalytics.syncs.enabled IS 'if false, new events make no deliveries and fetch returns none';
COMMENT ON COLUMN postalytics.syncs.campaigns IS 'ids of campaigns or drops; NULL for every campaign';
COMMENT ON COLUMN postalytics.syncs.accounts IS 'accounts; NULL for every account';
COMMENT ON COLUMN postalytics.syncs.statuses IS 'statuses; NULL for every status, empty for production errors only (requires errors)';
COMMENT ON COLUMN postalytics.syncs.wait IS 'time from an event until its delivery is due';
COMMENT ON COLUMN postalytics.syncs.unless IS 'due deliveries are cancelled if their piece has reached one of these statuses';
COMMENT ON COLUMN postalytics.syncs.latest_only IS 'if true, a delivery is superseded once its piece has a later one';
COMMENT ON COLUMN postalytics.syncs.ordered IS 'if true, the deliveries of a piece are leased one after the other, in order';
COMMENT ON COLUMN postalytics.syncs.durable IS 'true if the sync has deliveries, false if it has only notifications';
COMMENT ON COLUMN postalytics.syncs.max_attempts IS 'the number of fetches without an ack after which a delivery is dead';
COMMENT ON COLUMN postalytics.syncs.notify_events IS 'if true, notifications list events even if they have an account; if false, events with an account are only counted';
COMMENT ON COLUMN postalytics.syncs.rate IS 'maximum number of deliveries that all workers together lease within "per"; NULL for no limit';
COMMENT ON COLUMN postalytics.syncs.per IS 'the period that rate refers to';
COMMENT ON COLUMN postalytics.syncs.max_leased IS 'maximum number of deliveries that are leased at a time; NULL for no limit';
COMMENT ON COLUMN postalytics.syncs.breaker IS 'number of consecutive failures after which the sync is paused; NULL for never';
COMMENT ON COLUMN postalytics.syncs.errors IS 'if true, production errors also become deliveries';

SELECT pg_catalog.pg_extension_config_dump('postalytics.syncs', '');

CREATE TRIGGER configuration_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON postalytics.syncs
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.configuration_changed();
ALTER TABLE postalytics.syncs ENABLE ALWAYS TRIGGER configuration_changed;

-- A binding is deleted when its sync is deleted or renamed, so that it does not apply to a
-- later sync of the same name.  With a foreign key, pg_restore --jobs would fail, because
-- it restores the data of an extension's tables in any order.
CREATE FUNCTION postalytics.forget_bindings()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM postalytics.bindings AS b
    WHERE b.sync IS NOT NULL
      AND NOT EXISTS (SELECT
                      FROM postalytics.syncs AS s
                      WHERE s.name = b.sync);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION postalytics.forget_bindings() IS
    'internal: trigger function that deletes the bindings to syncs that do not exist any more';

CREATE TRIGGER forget_bindings
AFTER UPDATE OF name OR DELETE OR TRUNCATE ON postalytics.syncs
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.forget_bindings();

CREATE FUNCTION postalytics.raise_undefined_sync(name text)
RETURNS void
LANGUAGE c
AS 'MODULE_PATHNAME', 'postalytics_raise_undefined_sync';
COMMENT ON FUNCTION postalytics.raise_undefined_sync(text) IS
    'internal: raise the error that a sync does not exist';

-- Locks the sync's row FOR UPDATE.  Errors: 42704 if the sync does not exist.
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
        PERFORM postalytics.raise_undefined_sync(name);
    END IF;
    RETURN sync;
END
$$;
COMMENT ON FUNCTION postalytics.find_sync(text) IS
    'internal: lock and return the sync of that name, or raise an error';

CREATE FUNCTION postalytics.check_durable(name text)
RETURNS void
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_check_durable';
COMMENT ON FUNCTION postalytics.check_durable(text) IS
    'internal: raise an error if a sync has no deliveries';
