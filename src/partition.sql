/*
 * partition.sql
 *		events, partitioned by month, and the making of its months.
 *
 * The parent has no key, index or identity, and only the leaves do: a dump
 * carries the leaves, the extension's script the parent, and keys on both
 * would be made twice in a restore.
 */

CREATE SEQUENCE postalytics.event_id_seq;
COMMENT ON SEQUENCE postalytics.event_id_seq IS
    'event_id of events';

CREATE TABLE postalytics.events (
    event_id bigint NOT NULL DEFAULT pg_catalog.nextval('postalytics.event_id_seq'),
    piece_id text COLLATE pg_catalog."C" NOT NULL,
    status postalytics.mail_status NOT NULL,
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    account text,
    campaign_id text,
    payload json
)
PARTITION BY RANGE (occurred_at);

COMMENT ON TABLE postalytics.events IS
    'every event once: this piece, this status, this instant; append-only, a partition a month';
COMMENT ON COLUMN postalytics.events.event_id IS 'grows with arrival, with gaps';
COMMENT ON COLUMN postalytics.events.piece_id IS 'mail id, or campaign/contact (postalytics_status.identity)';
COMMENT ON COLUMN postalytics.events.occurred_at IS 'the feed''s own instant';
COMMENT ON COLUMN postalytics.events.received_at IS 'when the event was stored';
COMMENT ON COLUMN postalytics.events.account IS 'the client''s account: ingest''s argument, or else the feed''s';
COMMENT ON COLUMN postalytics.events.payload IS 'the event as it came; NULL with postalytics_status.keep_payload off';

SELECT pg_catalog.pg_extension_config_dump('postalytics.events', '');
SELECT pg_catalog.pg_extension_config_dump('postalytics.event_id_seq', '');

CREATE FUNCTION postalytics.ensure_partitions("from" timestamptz, until timestamptz)
RETURNS integer
LANGUAGE c
STRICT
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'postalytics_ensure_partitions';
COMMENT ON FUNCTION postalytics.ensure_partitions(timestamptz, timestamptz) IS
    'make the missing months of events from "from" to before until; how many were made';
