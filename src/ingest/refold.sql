/*
 * refold.sql
 *		Pieces derived again from stored events.
 */

CREATE FUNCTION postalytics.refold_pieces(piece_ids text[], account text)
RETURNS bigint
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_refold_pieces';
COMMENT ON FUNCTION postalytics.refold_pieces(text[], text) IS
    'internal: make the rows of an account''s pieces again from the events that are stored; how many events';
