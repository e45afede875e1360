/*
 * setup.sql
 *		Creates what worker.js needs for a target: a sync with the target's name, a role
 *		that can only process the deliveries of that sync and disable it, and for Pipedrive a table of the
 *		activities that the worker has created.  Can be run again.
 *
 *		psql -d crm -v target=hubspot -f setup.sql
 */
SELECT :'target' || '_worker' AS worker,
       :'target' = 'pipedrive' AS pipedrive
\gset
-- HubSpot allows an app 190 requests in 10 seconds.  Each request carries at least one delivery.
SELECT
FROM postalytics.create_sync(:'target',
                             statuses => '{Mailed,InTransit,InLocalArea,ProcessedForDelivery,ReRouted,ReturnedToSender,pURLOpened,pURLCompleted}',
                             max_attempts => 100, -- each fetch before a pause counts
                             rate => CASE WHEN :'target' = 'hubspot' THEN 190 END,
                             per => '10 seconds')
WHERE NOT EXISTS (SELECT FROM postalytics.syncs AS s WHERE s.name = :'target');
SELECT format('CREATE ROLE %I LOGIN', :'worker')
WHERE NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = :'worker')
\gexec
SELECT postalytics.grant_sync(:'worker', :'target');
\if :pipedrive
CREATE TABLE IF NOT EXISTS public.pipedrive_activity (
    piece_id text,
    account text,
    activity_id bigint NOT NULL,
    PRIMARY KEY (piece_id, account)
);
GRANT SELECT, INSERT ON public.pipedrive_activity TO pipedrive_worker;
\endif
