/*
 * piece_row.sql
 *		Functions that take rows of pieces.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

CREATE FUNCTION postalytics.merge_piece(stored postalytics.pieces, new postalytics.pieces, replace boolean)
RETURNS postalytics.pieces
LANGUAGE c
IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'postalytics_merge_piece';
COMMENT ON FUNCTION postalytics.merge_piece(postalytics.pieces, postalytics.pieces, boolean) IS
    'internal: merges two rows of a piece that were made from different events or, if replace is true, replaces the first with the second';

-- The body is a string, because users could not add columns to pieces if the body were
-- parsed at creation.  The string is parsed with the caller's search_path, so the
-- operators are schema-qualified.
CREATE FUNCTION postalytics.reached_at(piece postalytics.pieces, status postalytics.mail_status)
RETURNS timestamptz
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
SELECT CASE
           WHEN status OPERATOR(pg_catalog.=) 'MailPieceCreated' THEN piece.mail_piece_created_at
           WHEN status OPERATOR(pg_catalog.=) 'Addressed' THEN piece.addressed_at
           WHEN status OPERATOR(pg_catalog.=) 'Printed' THEN piece.printed_at
           WHEN status OPERATOR(pg_catalog.=) 'Mailed' THEN piece.mailed_at
           WHEN status OPERATOR(pg_catalog.=) 'InTransit' THEN piece.in_transit_at
           WHEN status OPERATOR(pg_catalog.=) 'InLocalArea' THEN piece.in_local_area_at
           WHEN status OPERATOR(pg_catalog.=) 'ProcessedForDelivery' THEN piece.processed_for_delivery_at
           WHEN status OPERATOR(pg_catalog.=) 'ReRouted' THEN piece.re_routed_at
           WHEN status OPERATOR(pg_catalog.=) 'ReturnedToSender' THEN piece.returned_to_sender_at
           WHEN status OPERATOR(pg_catalog.=) 'pURLOpened' THEN piece.first_opened_at
           WHEN status OPERATOR(pg_catalog.=) 'pURLCompleted' THEN piece.first_completed_at
       END
$$;
COMMENT ON FUNCTION postalytics.reached_at(postalytics.pieces, postalytics.mail_status) IS
    'time of a piece''s first event of a status; NULL if there is none';
