/*
 * setup.sql
 *		Creates a sync and a role that may ingest events and process the deliveries of this
 *		sync.  Can be run again.
 */
SELECT
FROM postalytics.create_sync('crm')
WHERE NOT EXISTS (SELECT FROM postalytics.syncs AS s WHERE s.name = 'crm');
SELECT 'CREATE ROLE crm_worker LOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = 'crm_worker')
\gexec
-- A fetch with max_wait continues in the server after its client has gone, and would lease
-- deliveries that nobody processes.  This ends it within a second.
ALTER ROLE crm_worker SET client_connection_check_interval = '1s';
SELECT postalytics.grant_ingest('crm_worker'), postalytics.grant_sync('crm_worker', 'crm');
