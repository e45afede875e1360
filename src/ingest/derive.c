/*
 * derive.c
 *		Hands each new row of events, in piece order, to all that is derived
 *		from events.  However the rows came, this is where pieces and syncs
 *		hear of them: from ingest, or from the one statement trigger.
 *
 * The trigger's transition table is read here and not by a query, so that one pass
 * serves all, and memory does not grow with the statement: rows of one piece
 * come together, and what is kept of a piece is dropped with its last row.
 */
#include "postalytics_status.h"

#include "access/table.h"
#include "access/tupdesc.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplesort.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(postalytics_events_inserted);
PG_FUNCTION_INFO_V1(postalytics_refold_pieces);

#define ATTR(column)	((column) + 1)

/* Pieces compare as bytes, as their collation has it. */
static int
compare_pieces(const char *a, uint32 a_length, const char *b, uint32 b_length)
{
	int			result = memcmp(a, b, Min(a_length, b_length));

	if (result != 0)
		return result;
	return a_length == b_length ? 0 : a_length < b_length ? -1 : 1;
}

/* ---- deriving ---- */

struct Derivation
{
	MemoryContext context;
	MemoryContext caller;		/* the one that it was begun in */
	MemoryContext piece_context;	/* of the piece that the rows are of */
	char	   *piece;			/* NULL before the first */
	uint32		piece_length;
	JourneyWriter *journeys;
	SyncMatch  *syncs;
};

/*
 * Begin to derive pieces and deliveries from events; needs an SPI connection
 * until derive_end.  If are_new is false, no deliveries are made.
 */
Derivation *
derive_begin(bool are_new)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "postalytics derive",
												  ALLOCSET_DEFAULT_SIZES);
	Derivation *derivation = MemoryContextAllocZero(context, sizeof(Derivation));

	derivation->context = context;
	derivation->caller = CurrentMemoryContext;
	derivation->piece_context = AllocSetContextCreate(context, "postalytics piece",
													  ALLOCSET_DEFAULT_SIZES);
	derivation->journeys = journey_writer_create(context);
	derivation->syncs = are_new ? sync_match_begin(context) : NULL;
	return derivation;
}

/*
 * The next row is of this piece: where to keep what it points at.  Rows come
 * in the order of pieces.
 */
MemoryContext
derive_piece(Derivation *derivation, const char *piece, uint32 length)
{
	if (derivation->piece != NULL &&
		compare_pieces(derivation->piece, derivation->piece_length, piece, length) == 0)
		return derivation->piece_context;
	if (derivation->piece != NULL)
		journey_next_piece(derivation->journeys);
	MemoryContextReset(derivation->piece_context);
	derivation->piece = MemoryContextAlloc(derivation->piece_context, Max(length, 1));
	memcpy(derivation->piece, piece, length);
	derivation->piece_length = length;
	return derivation->piece_context;
}

/* Hand on a row of the piece. */
void
derive_row(Derivation *derivation, const EventRow *row)
{
	journey_add(derivation->journeys, row);
	if (derivation->syncs != NULL)
		sync_match_event(derivation->syncs, row);
}

/* Write what is left, and return to the memory context of derive_begin. */
void
derive_end(Derivation *derivation)
{
	journey_finish(derivation->journeys);
	if (derivation->syncs != NULL)
		sync_match_finish(derivation->syncs);
	MemoryContextSwitchTo(derivation->caller);	/* the current one goes */
	MemoryContextDelete(derivation->context);
}

/* ---- the trigger ---- */

/* Do the rows come in piece order?  Those of ingest do. */
static bool
in_piece_order(Tuplestorestate *rows, TupleTableSlot *slot)
{
	char	   *last = NULL;
	uint32		last_length = 0;
	uint32		last_size = 0;
	bool		ordered = true;

	tuplestore_rescan(rows);
	while (ordered && tuplestore_gettupleslot(rows, true, false, slot))
	{
		bool		isnull;
		text	   *piece = DatumGetTextPP(slot_getattr(slot, ATTR(EVENTS_PIECE_ID), &isnull));
		uint32		length = VARSIZE_ANY_EXHDR(piece);

		ordered = last == NULL ||
			compare_pieces(last, last_length, VARDATA_ANY(piece), length) <= 0;
		if (last == NULL || length > last_size)
		{
			last_size = Max(64, length);
			last = palloc(last_size);
		}
		memcpy(last, VARDATA_ANY(piece), length);
		last_length = length;
	}
	return ordered;
}

/* The rows in piece order: as they are, or through the server's sort. */
typedef struct OrderedRows
{
	Tuplestorestate *rows;
	Tuplesortstate *sort;		/* NULL if they need none */
	TupleTableSlot *slot;
} OrderedRows;

static void
order_rows(OrderedRows *ordered, Tuplestorestate *rows, TupleDesc tupdesc)
{
	AttrNumber	column = ATTR(EVENTS_PIECE_ID);
	Oid			collation = C_COLLATION_OID;
	Oid			less = lookup_type_cache(TEXTOID, TYPECACHE_LT_OPR)->lt_opr;
	bool		nulls_first = false;

	ordered->rows = rows;
	ordered->sort = NULL;
	ordered->slot = MakeSingleTupleTableSlot(tupdesc, &TTSOpsMinimalTuple);
	if (in_piece_order(rows, ordered->slot))
	{
		tuplestore_rescan(rows);
		return;
	}

	ordered->sort = tuplesort_begin_heap(tupdesc, 1, &column, &less, &collation,
										 &nulls_first, work_mem, NULL,
										 TUPLESORT_NONE);
	tuplestore_rescan(rows);
	while (tuplestore_gettupleslot(rows, true, false, ordered->slot))
		tuplesort_puttupleslot(ordered->sort, ordered->slot);
	tuplesort_performsort(ordered->sort);
}

static bool
next_row(OrderedRows *ordered)
{
	if (ordered->sort != NULL)
		return tuplesort_gettupleslot(ordered->sort, true, false,
									  ordered->slot, NULL);
	return tuplestore_gettupleslot(ordered->rows, true, false, ordered->slot);
}

static void
end_rows(OrderedRows *ordered)
{
	ExecDropSingleTupleTableSlot(ordered->slot);
	if (ordered->sort != NULL)
		tuplesort_end(ordered->sort);
}

static text *
text_attribute(TupleTableSlot *slot, int attribute)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, attribute, &isnull);

	return isnull ? NULL : DatumGetTextPP(value);
}

/* What a stored payload says beyond the columns; NULL if it says nothing. */
static const EventRecord *
read_payload(TupleTableSlot *slot)
{
	text	   *payload = text_attribute(slot, ATTR(EVENTS_PAYLOAD));
	EventSource *source;
	EventRecord *record;

	if (payload == NULL)
		return NULL;
	source = palloc0(sizeof(EventSource));
	source->length = VARSIZE_ANY_EXHDR(payload);
	source->text = memcpy(palloc(source->length + 1), VARDATA_ANY(payload), source->length);
	record = palloc(sizeof(EventRecord));
	return event_read_fields(record, source) ? record : NULL;
}

/* Read a row, into the memory of its piece, for the slot goes on to the next. */
static void
read_row(Derivation *derivation, TupleTableSlot *slot, EventRow *row)
{
	bool		isnull;
	text	   *piece;

	slot_getallattrs(slot);
	piece = text_attribute(slot, ATTR(EVENTS_PIECE_ID));
	MemoryContextSwitchTo(derive_piece(derivation, VARDATA_ANY(piece), VARSIZE_ANY_EXHDR(piece)));
	piece = DatumGetTextPCopy(PointerGetDatum(piece));
	row->piece = VARDATA_ANY(piece);
	row->piece_length = VARSIZE_ANY_EXHDR(piece);
	row->event_id = DatumGetInt64(slot_getattr(slot, ATTR(EVENTS_EVENT_ID), &isnull));
	row->status = status_from_oid(DatumGetObjectId(slot_getattr(slot, ATTR(EVENTS_STATUS), &isnull)));
	row->occurred_at = DatumGetTimestampTz(slot_getattr(slot, ATTR(EVENTS_OCCURRED_AT), &isnull));
	row->account = text_attribute(slot, ATTR(EVENTS_ACCOUNT));
	row->campaign_id = text_attribute(slot, ATTR(EVENTS_CAMPAIGN_ID));
	row->record = ingested_record(row->piece, row->piece_length,
								  row->status, row->occurred_at);
	if (row->record == NULL)
		row->record = read_payload(slot);
}

static void
check_call(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		trigger->tg_newtable == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("events_inserted is the statement trigger of %s.events",
						EXTENSION_SCHEMA)));
	if (RelationGetRelid(trigger->tg_relation) != extension_relation("events"))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"events_inserted\" can be used only by a trigger of table \"%s.events\"",
						EXTENSION_SCHEMA)));
	check_not_distributed(RelationGetRelid(trigger->tg_relation));
}

/*
 * AFTER INSERT trigger of events, for each statement, with a transition table.
 * Locks: RowExclusiveLock on what it writes; rows of pieces in order, then of
 * campaigns.  Errors: 39P01 when attached to anything else.
 */
Datum
postalytics_events_inserted(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Derivation *derivation;
	MemoryContext caller = CurrentMemoryContext;
	OrderedRows ordered;
	EventRow	row;

	check_call(fcinfo);
	if (tuplestore_tuple_count(trigger->tg_newtable) == 0)
		return PointerGetDatum(NULL);

	check_columns(trigger->tg_relation, events_columns, N_EVENTS_COLUMNS);
	SPI_connect();
	derivation = derive_begin(true);
	MemoryContextSwitchTo(derivation->context);
	order_rows(&ordered, trigger->tg_newtable, RelationGetDescr(trigger->tg_relation));
	while (next_row(&ordered))
	{
		read_row(derivation, ordered.slot, &row);
		derive_row(derivation, &row);
		MemoryContextSwitchTo(derivation->context);
	}
	end_rows(&ordered);
	derive_end(derivation);
	SPI_finish();
	MemoryContextSwitchTo(caller);
	return PointerGetDatum(NULL);
}

/* ---- deriving pieces again ---- */

static void
delete_pieces(Datum piece_ids)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {TEXTARRAYOID};
	Datum		values[] = {piece_ids};

	if (SPI_execute_plan(keep_plan(&plan,
								   "DELETE FROM postalytics.pieces AS p"
								   " WHERE p.piece_id = ANY ($1)",
								   lengthof(types), types),
						 values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete pieces");
}

/* A cursor over the stored events of pieces, with the columns of events in their order. */
static Portal
open_events(Datum piece_ids)
{
	Oid			types[] = {TEXTARRAYOID};
	Datum		values[] = {piece_ids};

	return SPI_cursor_open_with_args(NULL,
									 "SELECT e.event_id, e.piece_id, e.status, e.occurred_at,"
									 "       e.received_at, e.account, e.campaign_id, e.payload"
									 " FROM postalytics.events AS e"
									 " WHERE e.piece_id = ANY ($1)"
									 " ORDER BY e.piece_id",
									 lengthof(types), types, values, NULL, false, 0);
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
	EventRow	row;
	int64		count = 0;

	SPI_connect();
	delete_pieces(piece_ids);
	cursor = open_events(piece_ids);
	derivation = derive_begin(false);
	for (;;)
	{
		TupleTableSlot *slot;

		SPI_cursor_fetch(cursor, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		slot = MakeSingleTupleTableSlot(SPI_tuptable->tupdesc, &TTSOpsHeapTuple);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			ExecStoreHeapTuple(SPI_tuptable->vals[i], slot, false);
			read_row(derivation, slot, &row);
			derive_row(derivation, &row);
			count++;
		}
		MemoryContextSwitchTo(derivation->caller);
		ExecDropSingleTupleTableSlot(slot);
		SPI_freetuptable(SPI_tuptable);
	}
	derive_end(derivation);
	SPI_cursor_close(cursor);
	SPI_finish();
	PG_RETURN_INT64(count);
}
