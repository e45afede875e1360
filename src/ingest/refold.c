/*
 * refold.c
 *		Derives pieces and campaigns again from their stored events, which is
 *		called refolding.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/query.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "ingest/derive.h"

PG_FUNCTION_INFO_V1(postalytics_refold_pieces);
PG_FUNCTION_INFO_V1(postalytics_refold_campaign);

/*
 * Pass rows to a derivation, and free them.  SPI_tuptable cannot be used here,
 * because the derivation may run statements that change it.
 */
static void
derive_rows(Derivation *derivation, SPITupleTable *rows, uint64 count)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(rows->tupdesc, &TTSOpsHeapTuple);

	for (uint64 i = 0; i < count; i++)
	{
		ExecStoreHeapTuple(rows->vals[i], slot, false);
		derive_slot(derivation, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	SPI_freetuptable(rows);
}

/* The columns that the queries select, in the order that derive_slot expects. */
#define EVENTS_COLUMNS \
	"e.event_id, e.piece_id, e.account, e.status, e.occurred_at, e.received_at, e.campaign_id, e.drop_id," \
	" e.payload"

#define FETCH_ROWS	1000

/* Derive from the events that a query selects, and return their number. */
static int64
derive_from(const SqlQuery *query, Datum *values, DeriveKind kind)
{
	Portal		cursor = SPI_cursor_open_with_args(NULL, query->sql, query->nparameters, (Oid *) query->types,
												   values, NULL, false, 0);
	Derivation *derivation = derive_begin(kind);
	int64		count = 0;

	for (;;)
	{
		SPI_cursor_fetch(cursor, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		count += SPI_processed;
		derive_rows(derivation, SPI_tuptable, SPI_processed);
	}
	derive_end(derivation);
	SPI_cursor_close(cursor);
	return count;
}

/* ---- pieces ---- */

/* Parameters of delete_piece_query and piece_events_query. */
enum
{
	REFOLD_PIECE_IDS, REFOLD_ACCOUNT, N_REFOLD
};

static SqlQuery delete_piece_query = {
	.sql = "DELETE FROM postalytics.pieces AS p"
	" WHERE p.piece_id = ANY ($1)"
	"   AND p.account = $2"
	"   AND NOT EXISTS (SELECT"
	"                   FROM postalytics.events AS e"
	"                   WHERE (e.piece_id, e.account) = (p.piece_id, p.account))",
	.result = SPI_OK_DELETE,
	.nparameters = N_REFOLD,
	.types = {[REFOLD_PIECE_IDS] = TEXTARRAYOID,[REFOLD_ACCOUNT] = TEXTOID}
};

static const SqlQuery piece_events_query = {
	.sql = "SELECT " EVENTS_COLUMNS
	" FROM postalytics.events AS e"
	" WHERE e.piece_id = ANY ($1)"
	"   AND e.account = $2"
	" ORDER BY e.piece_id",
	.nparameters = N_REFOLD,
	.types = {[REFOLD_PIECE_IDS] = TEXTARRAYOID,[REFOLD_ACCOUNT] = TEXTOID}
};

/*
 * refold_pieces(piece_ids text[], account text) returns bigint
 *
 * Derives the rows of these pieces of an account again from the stored events,
 * deletes the rows of pieces without events, and returns the number of events
 * read.  Data that came only from payloads that were not kept is preserved.
 * Data from retired months is lost.  Strict.
 *
 * Locks: the rows of pieces, which the caller must already have locked in key
 * order.  A concurrent ingest of these pieces either has committed, in which
 * case its events are read here, or waits for the rows and merges its events
 * into them afterwards.  If a piece has no row, the caller must prevent the
 * insertion of events of that piece.
 */
Datum
postalytics_refold_pieces(PG_FUNCTION_ARGS)
{
	Datum		values[N_REFOLD] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)};
	int64		count;

	SPI_connect();
	query_run(&delete_piece_query, values, NULL);
	count = derive_from(&piece_events_query, values, DERIVE_PIECES);
	SPI_finish();
	PG_RETURN_INT64(count);
}

/* ---- a campaign ---- */

/* Parameters of campaign_events_query. */
enum
{
	CAMPAIGN_CAMPAIGN_ID, CAMPAIGN_ACCOUNT, N_CAMPAIGN
};

static const SqlQuery campaign_events_query = {
	.sql = "SELECT " EVENTS_COLUMNS
	" FROM postalytics.events AS e"
	" WHERE e.campaign_id = $1"
	"   AND e.account = $2"
	" ORDER BY e.piece_id",
	.nparameters = N_CAMPAIGN,
	.types = {[CAMPAIGN_CAMPAIGN_ID] = TEXTOID,[CAMPAIGN_ACCOUNT] = TEXTOID}
};

/*
 * refold_campaign(campaign_id text, account text) returns bigint
 *
 * Updates the row of a campaign from all stored events of the campaign, and
 * returns the number of these events.  The caller must have cleared the name of
 * the campaign if the events that gave the name may have been deleted.  Strict.
 * Locks: the row of the campaign.
 */
Datum
postalytics_refold_campaign(PG_FUNCTION_ARGS)
{
	Datum		values[N_CAMPAIGN] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)};
	int64		count;

	SPI_connect();
	count = derive_from(&campaign_events_query, values, DERIVE_CAMPAIGNS);
	SPI_finish();
	PG_RETURN_INT64(count);
}
