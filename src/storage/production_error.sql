/*
 * production_error.sql
 *		production_errors: reports of pieces that were not created, and of general
 *		errors.
 *
 * The feed reports these errors as events of type Error or None, which are not part of
 * a journey.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TABLE postalytics.production_errors (
    piece_id text COLLATE pg_catalog."C" NOT NULL,
    account text COLLATE pg_catalog."C" NOT NULL DEFAULT '',
    status text COLLATE pg_catalog."C" NOT NULL
        CHECK (status IN ('Error', 'None')),
    occurred_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    campaign_id text,
    drop_id text,
    contact_id text,
    code text,
    description text,
    payload json,
    PRIMARY KEY (piece_id, account, occurred_at)
);
CREATE INDEX production_errors_campaign_id_idx ON postalytics.production_errors (campaign_id);
COMMENT ON TABLE postalytics.production_errors IS
    'production errors, which are events of type Error or None; one row for each piece, account and time';
COMMENT ON COLUMN postalytics.production_errors.piece_id IS 'piece, as in events';
COMMENT ON COLUMN postalytics.production_errors.account IS 'client to whom the mail belongs, as in events';
COMMENT ON COLUMN postalytics.production_errors.status IS 'Error: the piece was not created; None: a general error';
COMMENT ON COLUMN postalytics.production_errors.occurred_at IS 'time of the error, as given by the feed';
COMMENT ON COLUMN postalytics.production_errors.received_at IS 'when the error was stored';
COMMENT ON COLUMN postalytics.production_errors.campaign_id IS 'campaign, as in events';
COMMENT ON COLUMN postalytics.production_errors.drop_id IS 'drop of the campaign';
COMMENT ON COLUMN postalytics.production_errors.contact_id IS 'contact';
COMMENT ON COLUMN postalytics.production_errors.code IS 'error code';
COMMENT ON COLUMN postalytics.production_errors.description IS 'description of the error';
COMMENT ON COLUMN postalytics.production_errors.payload IS 'the event as received; NULL if setting keep_payload is off';

SELECT pg_catalog.pg_extension_config_dump('postalytics.production_errors', '');
