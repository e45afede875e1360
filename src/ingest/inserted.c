/*
 * inserted.c
 *		The statement trigger of events.
 *
 * It reads the transition table without a query, so that one pass serves all
 * that is derived.
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "base/extension.h"
#include "base/text.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "ingest/derive.h"
#include "miscadmin.h"
#include "storage/events.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/tuplesort.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(postalytics_events_inserted);

/* True if the rows are in the order of pieces, as those of ingest are. */
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
		text	   *piece = DatumGetTextPP(slot_getattr(slot, EVENTS_PIECE_ID + 1, &isnull));
		uint32		length = VARSIZE_ANY_EXHDR(piece);

		ordered = last == NULL ||
			compare_bytes(last, last_length, VARDATA_ANY(piece), length) <= 0;
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

/* The rows in the order of pieces. */
typedef struct OrderedRows
{
	Tuplestorestate *rows;
	Tuplesortstate *sort;		/* NULL if they are in order */
	TupleTableSlot *slot;
} OrderedRows;

static void
order_rows(OrderedRows *ordered, Tuplestorestate *rows, TupleDesc tupdesc)
{
	AttrNumber	column = EVENTS_PIECE_ID + 1;
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
 * events_inserted(), the AFTER INSERT trigger of events, FOR EACH STATEMENT
 * with a transition table
 *
 * Locks: ROW EXCLUSIVE on the tables it writes, and rows of pieces, then of
 * campaigns, each in key order.  Error 39P01 if it is attached to anything
 * else.
 */
Datum
postalytics_events_inserted(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Derivation *derivation;
	OrderedRows ordered;

	check_call(fcinfo);
	if (tuplestore_tuple_count(trigger->tg_newtable) == 0)
		return PointerGetDatum(NULL);

	check_columns(trigger->tg_relation, events_columns, N_EVENTS_COLUMNS);
	SPI_connect();
	derivation = derive_begin(true);
	order_rows(&ordered, trigger->tg_newtable, RelationGetDescr(trigger->tg_relation));
	while (next_row(&ordered))
		derive_slot(derivation, ordered.slot);
	end_rows(&ordered);
	derive_end(derivation);
	SPI_finish();
	return PointerGetDatum(NULL);
}
