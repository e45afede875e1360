/*
 * setup.sql
 *		Creates what the board needs: a role that can read, and a sync that only
 *		sends notifications.
 */
CREATE ROLE board LOGIN;
SELECT postalytics.grant_read('board');
SELECT postalytics.create_sync('board', durable => false, notify_events => true);
