/*
 * refold.c
 *		Derives pieces again from the events that are stored.
 */
#include "postgres.h"

#include "base/query.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "ingest/derive.h"

PG_FUNCTION_INFO_V1(postalytics_refold_pieces);

static SqlQuery delete_query = {
	.sql = "DELETE FROM postalytics.pieces AS p"
	" WHERE p.piece_id = ANY ($1)",
	.result = SPI_OK_DELETE,
	.nparameters = 1,
	.types = {TEXTARRAYOID}
};

/* Has the columns of events in their order, as derive_slot needs them. */
static const char events_query[] =
"SELECT e.event_id, e.piece_id, e.status, e.occurred_at,"
"       e.received_at, e.account, e.campaign_id, e.payload"
" FROM postalytics.events AS e"
" WHERE e.piece_id = ANY ($1)"
" ORDER BY e.piece_id";

/* Open a cursor over the stored events of pieces. */
static Portal
open_events(Datum piece_ids)
{
	Oid			types[] = {TEXTARRAYOID};
	Datum		values[] = {piece_ids};

	return SPI_cursor_open_with_args(NULL, events_query, lengthof(types), types, values, NULL, false, 0);
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
 * refold_pieces(piece_ids text[]) returns bigint
 *
 * Deletes these rows of pieces, derives them again from the stored events, and
 * returns the number of those events.  What came only from payloads that are
 * not kept, or from retired months, is lost.  Strict.  Locks: the rows of
 * pieces.  The caller must prevent concurrent inserts of their events.
 */
Datum
postalytics_refold_pieces(PG_FUNCTION_ARGS)
{
	Datum		piece_ids = PG_GETARG_DATUM(0);
	Derivation *derivation;
	Portal		cursor;
	int64		count = 0;

	SPI_connect();
	query_run(&delete_query, &piece_ids, NULL);
	cursor = open_events(piece_ids);
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
