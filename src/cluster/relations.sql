/*
 * relations.sql
 *		The tables that the front of a cluster has as foreign partitions.
 *
 * The front's script consists of the files of postalytics_status, in the same order.
 * Their tables of events become partitioned tables with the same columns here.
 * add_slot adds a foreign partition for each slot.  The tables of the configuration stay
 * tables.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- Replaces a table or view with an empty table that is partitioned by key, and keeps its
-- columns and comments.  front.sql drops this function.
CREATE FUNCTION postalytics.distribute(relation name, key text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_slot CONSTANT name := relation || '_of_slot';
    kind CONSTANT text := (SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END
                           FROM pg_class AS c
                           WHERE c.oid = format('postalytics.%I', relation)::regclass);
    comment CONSTANT text := obj_description(format('postalytics.%I', relation)::regclass, 'pg_class');
BEGIN
    EXECUTE format('ALTER %s postalytics.%I RENAME TO %I', kind, relation, of_slot);
    EXECUTE format('CREATE TABLE postalytics.%I (LIKE postalytics.%I INCLUDING COMMENTS) %s',
                   relation, of_slot, 'PARTITION BY ' || key);
    EXECUTE format('COMMENT ON TABLE postalytics.%I IS %L', relation, comment);
    -- A member of an extension cannot be dropped on its own.
    EXECUTE format('ALTER EXTENSION postalytics_cluster DROP %s postalytics.%I', kind, of_slot);
    EXECUTE format('DROP %s postalytics.%I', kind, of_slot);
END
$$;
COMMENT ON FUNCTION postalytics.distribute(name, text) IS
    'internal: replace a table or view with an empty partitioned table';

SELECT postalytics.distribute('events', 'HASH (piece_id)');
SELECT postalytics.distribute('production_errors', 'HASH (piece_id)');
SELECT postalytics.distribute('pieces', 'HASH (piece_id)');

-- Foreign tables have columns of the same names, which inherit from slots_campaigns.
ALTER TABLE postalytics.campaigns RENAME TO slots_campaigns;
COMMENT ON TABLE postalytics.slots_campaigns IS
    'internal: the campaigns of all slots';
ALTER TABLE postalytics.slots_campaigns DROP CONSTRAINT campaigns_pkey;

-- A campaign has pieces in several slots, which may know different names.  The name
-- given on the latest day takes precedence, as in latest_name (campaign.sql).
CREATE VIEW postalytics.campaigns
WITH (security_barrier = true) AS
SELECT DISTINCT ON (c.campaign_id, c.account)
       c.campaign_id,
       c.account,
       c.name,
       c.named_on
FROM postalytics.slots_campaigns AS c
WHERE postalytics.may_see(c.account, (SELECT postalytics.reads_all()), (SELECT postalytics.readable_accounts()))
ORDER BY c.campaign_id, c.account, c.named_on DESC NULLS LAST, c.name COLLATE pg_catalog."C" DESC;
COMMENT ON VIEW postalytics.campaigns IS
    'one row for each campaign that events name; for counts, see pieces';
COMMENT ON COLUMN postalytics.campaigns.campaign_id IS 'id of the campaign, or of its drop if only the drop is known';
COMMENT ON COLUMN postalytics.campaigns.account IS 'client whose campaign it is; empty if no account was given';
COMMENT ON COLUMN postalytics.campaigns.name IS 'name given on the latest day; of several names given on that day, the last in byte order';
COMMENT ON COLUMN postalytics.campaigns.named_on IS 'day (UTC) of the latest event that gives the campaign a name';
