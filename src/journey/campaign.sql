/*
 * campaign.sql
 *		campaigns: the campaigns that events name, and their names.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TABLE postalytics.campaigns (
    campaign_id text COLLATE pg_catalog."C" NOT NULL,
    account text COLLATE pg_catalog."C" NOT NULL DEFAULT '',
    name text,
    named_on date,
    PRIMARY KEY (campaign_id, account)
);
COMMENT ON TABLE postalytics.campaigns IS
    'one row for each campaign that events name; for counts, see pieces';
COMMENT ON COLUMN postalytics.campaigns.campaign_id IS 'id of the campaign, or of its drop if only the drop is known';
COMMENT ON COLUMN postalytics.campaigns.account IS 'client whose campaign it is; empty if no account was given';
COMMENT ON COLUMN postalytics.campaigns.name IS 'name given on the latest day; of several names given on that day, the last in byte order';
COMMENT ON COLUMN postalytics.campaigns.named_on IS 'day (UTC) of the latest event that gives the campaign a name';

SELECT pg_catalog.pg_extension_config_dump('postalytics.campaigns', '');

-- The name given on the later day takes precedence.  If both names were given on the
-- same day, the last in byte order does.  name_takes_precedence in campaign.c applies
-- the same rule to the events of a call.
CREATE FUNCTION postalytics.latest_name(
    stored_name text,
    stored_on date,
    new_name text,
    new_on date,
    OUT name text,
    OUT named_on date)
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT n.name, n.named_on
    FROM (VALUES (stored_name, stored_on), (new_name, new_on)) AS n (name, named_on)
    ORDER BY n.named_on DESC NULLS LAST, n.name COLLATE pg_catalog."C" DESC
    LIMIT 1
$$;
COMMENT ON FUNCTION postalytics.latest_name(text, date, text, date) IS
    'internal: the one of two names of a campaign that takes precedence';
