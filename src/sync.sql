/*
 * sync.sql
 *		syncs: which events a CRM is to be told of, and on which channel.
 */

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
        CHECK (pg_catalog.cardinality(statuses) > 0 AND pg_catalog.array_position(statuses, NULL) IS NULL)
);
COMMENT ON TABLE postalytics.syncs IS
    'what a Zap is elsewhere: which events a CRM is told of, and how; see create_sync';
COMMENT ON COLUMN postalytics.syncs.channel IS 'what to LISTEN to';
COMMENT ON COLUMN postalytics.syncs.campaigns IS 'campaign ids; NULL for every campaign';
COMMENT ON COLUMN postalytics.syncs.accounts IS 'accounts; NULL for every account';
COMMENT ON COLUMN postalytics.syncs.statuses IS 'statuses; NULL for every status';

SELECT pg_catalog.pg_extension_config_dump('postalytics.syncs', '');

CREATE TRIGGER configuration_changed
AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON postalytics.syncs
FOR EACH STATEMENT
EXECUTE FUNCTION postalytics.configuration_changed();

-- Errors: 22023 for what a sync cannot be, 42710 where there is one of the name.
CREATE FUNCTION postalytics.create_sync(
    name text,
    campaigns text[] DEFAULT NULL,
    accounts text[] DEFAULT NULL,
    statuses postalytics.mail_status[] DEFAULT NULL,
    channel text DEFAULT NULL,
    enabled boolean DEFAULT true)
RETURNS postalytics.syncs
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    new postalytics.syncs;
BEGIN
    new.name := create_sync.name;
    new.channel := COALESCE(create_sync.channel, 'postalytics_' || create_sync.name);
    new.enabled := create_sync.enabled;
    new.campaigns := create_sync.campaigns;
    new.accounts := create_sync.accounts;
    new.statuses := create_sync.statuses;
    IF COALESCE(new.name, '') = '' OR octet_length(new.name) > 63 THEN
        RAISE EXCEPTION 'a sync needs a name of 1 to 63 bytes'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF new.channel = '' OR octet_length(new.channel) > 63 THEN
        RAISE EXCEPTION 'channel "%" is not of 1 to 63 bytes', new.channel
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Name a channel: create_sync(..., channel => ''...'').';
    END IF;
    IF 0 IN (cardinality(new.campaigns), cardinality(new.accounts), cardinality(new.statuses)) THEN
        RAISE EXCEPTION 'sync "%" would match nothing: a list of campaigns, accounts or statuses is empty', new.name
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Leave the list out to match all.';
    END IF;
    IF array_position(new.campaigns, NULL) IS NOT NULL
       OR array_position(new.accounts, NULL) IS NOT NULL
       OR array_position(new.statuses, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'a list of sync "%" holds NULL', new.name
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    INSERT INTO postalytics.syncs
    SELECT new.*
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'sync "%" already exists', new.name
            USING ERRCODE = 'duplicate_object',
                  HINT = 'Drop it first: drop_sync(name).';
    END IF;
    RETURN new;
END
$$;
COMMENT ON FUNCTION postalytics.create_sync(text, text[], text[], postalytics.mail_status[], text, boolean) IS
    'make a sync: events of these campaigns, accounts and statuses are told on its channel';

-- Errors: 42704 where there is none.
CREATE FUNCTION postalytics.find_sync(name text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM postalytics.syncs AS s WHERE s.name = find_sync.name) THEN
        RAISE EXCEPTION 'sync "%" does not exist', name
            USING ERRCODE = 'undefined_object',
                  HINT = 'Their names are in postalytics.syncs.';
    END IF;
END
$$;
COMMENT ON FUNCTION postalytics.find_sync(text) IS
    'internal: an error if there is no such sync';

CREATE FUNCTION postalytics.enable_sync(name text)
RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    SELECT postalytics.find_sync(name);
    UPDATE postalytics.syncs AS s
    SET enabled = true
    WHERE s.name = enable_sync.name;
END;
COMMENT ON FUNCTION postalytics.enable_sync(text) IS
    'turn a sync on';

CREATE FUNCTION postalytics.disable_sync(name text)
RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    SELECT postalytics.find_sync(name);
    UPDATE postalytics.syncs AS s
    SET enabled = false
    WHERE s.name = disable_sync.name;
END;
COMMENT ON FUNCTION postalytics.disable_sync(text) IS
    'turn a sync off';

CREATE FUNCTION postalytics.drop_sync(name text)
RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    SELECT postalytics.find_sync(name);
    DELETE FROM postalytics.syncs AS s
    WHERE s.name = drop_sync.name;
END;
COMMENT ON FUNCTION postalytics.drop_sync(text) IS
    'do away with a sync';
