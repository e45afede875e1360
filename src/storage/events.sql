/*
 * events.sql
 *		events: every event once, in monthly partitions.
 *
 * Only the partitions, which are called leaves, have primary keys.  The parent has no
 * key, index or identity column.  If the parent had a key, a restore would create the
 * leaves' keys twice: the extension's script creates the parent, and the dump contains
 * the leaves with their keys.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE SEQUENCE postalytics.event_id_seq;
COMMENT ON SEQUENCE postalytics.event_id_seq IS
    'event_id of events';

CREATE TABLE postalytics.events (
    event_id bigint NOT NULL DEFAULT pg_catalog.nextval('postalytics.event_id_seq'),
    piece_id text COLLATE pg_catalog."C" NOT NULL,
    account text COLLATE pg_catalog."C" NOT NULL DEFAULT '',
    status postalytics.mail_status NOT NULL,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    campaign_id text,
    drop_id text,
    payload json
)
PARTITION BY RANGE (occurred_at);

COMMENT ON TABLE postalytics.events IS
    'every event once, by piece, account, status and time; append-only, partitioned by month';
COMMENT ON COLUMN postalytics.events.event_id IS 'increases in order of arrival, with gaps';
COMMENT ON COLUMN postalytics.events.piece_id IS 'mail id, or campaign/contact; see setting identity';
COMMENT ON COLUMN postalytics.events.account IS 'client to whom the mail belongs: the account to which the role is bound, the account specified in the call, or the account found in the payload by field_names; empty if none was given';
COMMENT ON COLUMN postalytics.events.status IS 'status of the event';
COMMENT ON COLUMN postalytics.events.occurred_at IS 'time of the event, as given by the feed';
COMMENT ON COLUMN postalytics.events.received_at IS 'when the event was stored';
COMMENT ON COLUMN postalytics.events.campaign_id IS 'campaign, or the drop if the event names only the drop';
COMMENT ON COLUMN postalytics.events.drop_id IS 'drop of the campaign';
COMMENT ON COLUMN postalytics.events.payload IS 'the event as received; NULL if setting keep_payload is off';

SELECT pg_catalog.pg_extension_config_dump('postalytics.events', '');
SELECT pg_catalog.pg_extension_config_dump('postalytics.event_id_seq', '');
