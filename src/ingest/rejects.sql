/*
 * rejects.sql
 *		rejects: the events that were rejected.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE SEQUENCE postalytics.reject_id_seq;
COMMENT ON SEQUENCE postalytics.reject_id_seq IS
    'reject_id of rejects';

CREATE TABLE postalytics.rejects (
    reject_id bigint NOT NULL DEFAULT pg_catalog.nextval('postalytics.reject_id_seq') PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    account text NOT NULL DEFAULT '',
    piece_id text,
    reason text NOT NULL,
    payload json NOT NULL
);
CREATE INDEX rejects_received_at_idx ON postalytics.rejects (received_at);
COMMENT ON TABLE postalytics.rejects IS
    'rejected events, as they arrived, with the reason';
COMMENT ON COLUMN postalytics.rejects.reject_id IS 'id of the reject';
COMMENT ON COLUMN postalytics.rejects.received_at IS 'when the event arrived';
COMMENT ON COLUMN postalytics.rejects.account IS 'account of the event, determined as in events; empty if none was given';
COMMENT ON COLUMN postalytics.rejects.piece_id IS 'id of the piece; NULL if it could not be read, or if the row stands for several events';
COMMENT ON COLUMN postalytics.rejects.reason IS 'why the event was rejected';
COMMENT ON COLUMN postalytics.rejects.payload IS 'the event as it arrived; the whole payload of a call with more rejected events than setting max_rejects allows; an array of events for the rejects of a statement on inbox that exceed max_rejects';

SELECT pg_catalog.pg_extension_config_dump('postalytics.rejects', '');
SELECT pg_catalog.pg_extension_config_dump('postalytics.reject_id_seq', '');
