/*
 * production_error.sql
 *		production_errors: pieces that were never made, and other errors.
 *
 * The feed reports them as events of type Error or None, which are no step of a
 * journey.
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
    'production errors, which are events of type Error or None: each once, by piece, account and time';
COMMENT ON COLUMN postalytics.production_errors.piece_id IS 'the piece, as in events';
COMMENT ON COLUMN postalytics.production_errors.account IS 'whose mail it is, as in events';
COMMENT ON COLUMN postalytics.production_errors.status IS 'Error: the piece was not created; None: a general error';
COMMENT ON COLUMN postalytics.production_errors.occurred_at IS 'the time that the feed gives';
COMMENT ON COLUMN postalytics.production_errors.received_at IS 'when the error was stored';
COMMENT ON COLUMN postalytics.production_errors.campaign_id IS 'the campaign, as in events';
COMMENT ON COLUMN postalytics.production_errors.drop_id IS 'the drop of the campaign';
COMMENT ON COLUMN postalytics.production_errors.contact_id IS 'the contact';
COMMENT ON COLUMN postalytics.production_errors.code IS 'the error code';
COMMENT ON COLUMN postalytics.production_errors.description IS 'the error in words';
COMMENT ON COLUMN postalytics.production_errors.payload IS 'the event as it came; NULL if the setting keep_payload is off';

SELECT pg_catalog.pg_extension_config_dump('postalytics.production_errors', '');
