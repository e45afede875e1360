/*
 * events.sql
 *		events: every event once, in monthly partitions.
 * 
 * The parent has no key, index or identity.  Only the leaves have: a dump contains
 * the leaves, and the extension's script creates the parent, so that a restore would
 * create keys of both twice.
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
COMMENT ON COLUMN postalytics.events.event_id IS 'grows with arrival, with gaps';
COMMENT ON COLUMN postalytics.events.piece_id IS 'mail id, or campaign/contact; see the setting identity';
COMMENT ON COLUMN postalytics.events.occurred_at IS 'the time that the feed gives';
COMMENT ON COLUMN postalytics.events.received_at IS 'when the event was stored';
COMMENT ON COLUMN postalytics.events.account IS 'the client that the mail belongs to: the account of the role, of the call, or of the payload by field_names; empty if none was given';
COMMENT ON COLUMN postalytics.events.campaign_id IS 'the campaign; the drop if the event names only that';
COMMENT ON COLUMN postalytics.events.drop_id IS 'the drop of the campaign';
COMMENT ON COLUMN postalytics.events.payload IS 'the event as it came; NULL if the setting keep_payload is off';

SELECT pg_catalog.pg_extension_config_dump('postalytics.events', '');
SELECT pg_catalog.pg_extension_config_dump('postalytics.event_id_seq', '');
