/*
 * piece.sql
 *		pieces: what is known about each mail piece from its events.
 *
 * A row depends only on the set of the piece's events, not on their order.  The
 * column marks ensures this.  For each status, it identifies the last event.  For each
 * group of columns that are taken from the same event, it identifies that event.  An
 * event is identified by its time (in microseconds since 2000), times 16, plus the
 * number of its status.  piece.c describes how these numbers are stored.
 *
 * The key begins with piece_id, so that a lookup without an account also needs only one
 * descent of the index.
 *
 * The columns that reports count come first, because a row is read from its start.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE TABLE postalytics.pieces (
    piece_id text COLLATE pg_catalog."C" NOT NULL,
    account text COLLATE pg_catalog."C" NOT NULL DEFAULT '',
    campaign_id text,
    drop_id text,
    contact_id text,
    status postalytics.mail_status,
    status_at timestamptz,
    response postalytics.mail_status,
    mail_piece_created_at timestamptz,
    addressed_at timestamptz,
    printed_at timestamptz,
    mailed_at timestamptz,
    in_transit_at timestamptz,
    in_local_area_at timestamptz,
    processed_for_delivery_at timestamptz,
    re_routed_at timestamptz,
    returned_to_sender_at timestamptz,
    first_opened_at timestamptz,
    first_completed_at timestamptz,
    opens integer NOT NULL,
    completions integer NOT NULL,
    first_event_at timestamptz NOT NULL,
    last_event_at timestamptz NOT NULL,
    expected_delivery_at timestamptz,
    country text,
    first_name text,
    last_name text,
    company text,
    email text,
    city text,
    state text,
    zip text,
    fields jsonb,
    last_url text,
    marks bytea NOT NULL,
    PRIMARY KEY (piece_id, account)
)
WITH (fillfactor = 95);

CREATE INDEX pieces_campaign_id_idx ON postalytics.pieces (campaign_id);
CREATE INDEX pieces_drop_id_idx ON postalytics.pieces (drop_id) WHERE drop_id IS NOT NULL;

COMMENT ON TABLE postalytics.pieces IS
    'one row for each mail piece: its journey, current status and recipient';
COMMENT ON COLUMN postalytics.pieces.piece_id IS 'mail id, or campaign/contact; see the setting identity';
COMMENT ON COLUMN postalytics.pieces.account IS 'client to whom the mail belongs; empty if no account was given';
COMMENT ON COLUMN postalytics.pieces.campaign_id IS 'campaign, from the latest event that names a campaign; the drop if only the drop is known';
COMMENT ON COLUMN postalytics.pieces.drop_id IS 'drop of the campaign, from the latest event that names a drop';
COMMENT ON COLUMN postalytics.pieces.contact_id IS 'contact, from the latest event that names a contact';
COMMENT ON COLUMN postalytics.pieces.status IS 'current status; NULL while there are only responses';
COMMENT ON COLUMN postalytics.pieces.status_at IS 'time of the last event of the current status';
COMMENT ON COLUMN postalytics.pieces.response IS 'pURLCompleted, pURLOpened or NULL';
COMMENT ON COLUMN postalytics.pieces.mail_piece_created_at IS 'time of the first event of status MailPieceCreated';
COMMENT ON COLUMN postalytics.pieces.addressed_at IS 'time of the first event of status Addressed';
COMMENT ON COLUMN postalytics.pieces.printed_at IS 'time of the first event of status Printed';
COMMENT ON COLUMN postalytics.pieces.mailed_at IS 'time of the first event of status Mailed';
COMMENT ON COLUMN postalytics.pieces.in_transit_at IS 'time of the first event of status InTransit';
COMMENT ON COLUMN postalytics.pieces.in_local_area_at IS 'time of the first event of status InLocalArea';
COMMENT ON COLUMN postalytics.pieces.processed_for_delivery_at IS 'time of the first event of status ProcessedForDelivery';
COMMENT ON COLUMN postalytics.pieces.re_routed_at IS 'time of the first event of status ReRouted';
COMMENT ON COLUMN postalytics.pieces.returned_to_sender_at IS 'time of the first event of status ReturnedToSender';
COMMENT ON COLUMN postalytics.pieces.first_opened_at IS 'time of the first visit to the personal URL';
COMMENT ON COLUMN postalytics.pieces.first_completed_at IS 'time of the first visit to the goal URL';
COMMENT ON COLUMN postalytics.pieces.opens IS 'visits to the personal URL';
COMMENT ON COLUMN postalytics.pieces.completions IS 'visits to the goal URL';
COMMENT ON COLUMN postalytics.pieces.first_event_at IS 'time of the first event';
COMMENT ON COLUMN postalytics.pieces.last_event_at IS 'time of the last event';
COMMENT ON COLUMN postalytics.pieces.expected_delivery_at IS 'expected delivery date, from the latest event that has one';
COMMENT ON COLUMN postalytics.pieces.country IS 'country, from the latest event that names one';
COMMENT ON COLUMN postalytics.pieces.first_name IS 'first name of the recipient; the columns from first_name to state come from the latest event that has any of them';
COMMENT ON COLUMN postalytics.pieces.last_name IS 'last name of the recipient';
COMMENT ON COLUMN postalytics.pieces.company IS 'company of the recipient';
COMMENT ON COLUMN postalytics.pieces.email IS 'e-mail address of the recipient';
COMMENT ON COLUMN postalytics.pieces.city IS 'city of the recipient';
COMMENT ON COLUMN postalytics.pieces.state IS 'state of the recipient';
COMMENT ON COLUMN postalytics.pieces.zip IS 'ZIP code, from the latest event that has one';
COMMENT ON COLUMN postalytics.pieces.fields IS 'other fields of the mailing list, from the latest event that has any';
COMMENT ON COLUMN postalytics.pieces.last_url IS 'URL of the latest visit that has one';
COMMENT ON COLUMN postalytics.pieces.marks IS 'internal: which event decided each part of the row';

SELECT pg_catalog.pg_extension_config_dump('postalytics.pieces', '');
