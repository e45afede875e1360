/*
 * setup.sql
 *		What the board needs: a role that reads, and a sync that only notifies.
 */
CREATE ROLE board LOGIN;
SELECT postalytics.grant_read('board');
SELECT postalytics.create_sync('board', durable => false, notify_events => true);
