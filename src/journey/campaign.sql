/*
 * campaign.sql
 *		campaigns: the campaigns that events name, and their names.
 */

CREATE TABLE postalytics.campaigns (
    campaign_id text NOT NULL PRIMARY KEY,
    account text,
    name text,
    named_on date
);
COMMENT ON TABLE postalytics.campaigns IS
    'a row a campaign that events name; counts are in pieces';
COMMENT ON COLUMN postalytics.campaigns.name IS
    'the name that the events of the latest day give it; of several on that day the last in byte order';
COMMENT ON COLUMN postalytics.campaigns.named_on IS
    'the day (UTC) of the latest event that names it';

SELECT pg_catalog.pg_extension_config_dump('postalytics.campaigns', '');
