/*
 * refold.c
 *		Derives pieces again from the events that are stored.
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/query.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "ingest/derive.h"

PG_FUNCTION_INFO_V1(postalytics_refold_pieces);

/* Parameters of delete_query and events_query. */
enum
{
	REFOLD_PIECE_IDS, REFOLD_ACCOUNT, N_REFOLD
};

static SqlQuery delete_query = {
	.sql = "DELETE FROM postalytics.pieces AS p"
	" WHERE p.piece_id = ANY ($1)"
	"   AND p.account = $2",
	.result = SPI_OK_DELETE,
	.nparameters = N_REFOLD,
	.types = {[REFOLD_PIECE_IDS] = TEXTARRAYOID,[REFOLD_ACCOUNT] = TEXTOID}
};

/* Has the columns of events in their order, as derive_slot needs them. */
static const char events_query[] =
"SELECT e.event_id, e.piece_id, e.account, e.status, e.occurred_at,"
"       e.received_at, e.campaign_id, e.payload"
" FROM postalytics.events AS e"
" WHERE e.piece_id = ANY ($1)"
"   AND e.account = $2"
" ORDER BY e.piece_id";

/* Open a cursor over the stored events of pieces. */
static Portal
open_events(Datum *values)
{
	return SPI_cursor_open_with_args(NULL, events_query, N_REFOLD, delete_query.types, values, NULL, false, 0);
}

/* Pass rows to a derivation, which may run statements of its own. */
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

#define FETCH_ROWS	1000

/*
 * refold_pieces(piece_ids text[], account text) returns bigint
 *
 * Deletes the rows of these pieces of an account, derives them again from the stored events, and
 * returns the number of those events.  What came only from payloads that are
 * not kept, or from retired months, is lost.  Strict.  Locks: the rows of
 * pieces.  The caller must prevent concurrent inserts of their events.
 */
Datum
postalytics_refold_pieces(PG_FUNCTION_ARGS)
{
	Datum		values[N_REFOLD] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)};
	Derivation *derivation;
	Portal		cursor;
	int64		count = 0;

	SPI_connect();
	query_run(&delete_query, values, NULL);
	cursor = open_events(values);
	derivation = derive_begin(false);
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
	SPI_finish();
	PG_RETURN_INT64(count);
}
