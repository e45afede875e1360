/*
 * refold.sql
 *		refold_pieces, refold_campaign: derive pieces and campaigns again from stored
 *		events, which is called refolding.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */

-- The settings make the planner look up each piece by index, regardless of the
-- estimated size of the tables.
CREATE FUNCTION postalytics.refold_pieces(piece_ids text[], account text)
RETURNS bigint
LANGUAGE c
STRICT
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS 'MODULE_PATHNAME', 'postalytics_refold_pieces';
COMMENT ON FUNCTION postalytics.refold_pieces(text[], text) IS
    'internal: derive pieces of an account again from their stored events, and return the number of events';

CREATE FUNCTION postalytics.refold_campaign(campaign_id text, account text)
RETURNS bigint
LANGUAGE c
STRICT
AS 'MODULE_PATHNAME', 'postalytics_refold_campaign';
COMMENT ON FUNCTION postalytics.refold_campaign(text, text) IS
    'internal: update a campaign of an account from its stored events, and return the number of events';
