/*
 * setup.sql
 *		Creates what worker.js needs in the database: a sync, a role that can only
 *		process the deliveries of that sync, and a table of the activities that
 *		the worker has created.
 */
SELECT postalytics.create_sync('pipedrive', statuses => '{Mailed,InTransit,InLocalArea,ProcessedForDelivery,ReturnedToSender}');
CREATE ROLE pipedrive_worker LOGIN;
SELECT postalytics.grant_sync('pipedrive_worker', 'pipedrive');
CREATE TABLE public.pipedrive_activity (
    piece_id text PRIMARY KEY,
    activity_id bigint NOT NULL
);
GRANT SELECT, INSERT ON public.pipedrive_activity TO pipedrive_worker;
