/*
 * match.sql
 *		Matching of events against a sync.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.is_for(
    sync text,
    status postalytics.mail_status,
    campaign_id text,
    drop_id text,
    account text)
RETURNS boolean
LANGUAGE c
STABLE
AS 'MODULE_PATHNAME', 'postalytics_is_for';
COMMENT ON FUNCTION postalytics.is_for(text, postalytics.mail_status, text, text, text) IS
    'internal: true if a sync is for events with these values';
