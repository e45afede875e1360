/*
 * inserted.c
 *		The statement trigger of events, which updates everything that is
 *		derived from new events.
 *
 * The trigger reads the transition table without a query, so that one pass is
 * enough to derive everything.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "base/compat.h"
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

/* Compare two rows by piece, that is by piece_id and account. */
static int
compare_pieces(TupleTableSlot *a, TupleTableSlot *b)
{
	int			result = 0;

	for (int column = EVENTS_PIECE_ID; result == 0 && column <= EVENTS_ACCOUNT; column++)
	{
		bool		isnull;
		text	   *x = DatumGetTextPP(slot_getattr(a, column + 1, &isnull));
		text	   *y = DatumGetTextPP(slot_getattr(b, column + 1, &isnull));

		result = compare_bytes(VARDATA_ANY(x), VARSIZE_ANY_EXHDR(x), VARDATA_ANY(y), VARSIZE_ANY_EXHDR(y));
	}
	return result;
}

/*
 * True if the rows are in the order of pieces, as the rows that ingest inserts
 * are.  Leaves the tuplestore at its beginning.
 */
static bool
in_piece_order(Tuplestorestate *rows, TupleDesc tupdesc)
{
	TupleTableSlot *slots[2];
	int			next = 0;
	bool		ordered = true;

	for (int i = 0; i < lengthof(slots); i++)
		slots[i] = MakeSingleTupleTableSlot(tupdesc, &TTSOpsMinimalTuple);
	tuplestore_rescan(rows);
	for (; ordered && tuplestore_gettupleslot(rows, true, false, slots[next]); next = 1 - next)
		ordered = TupIsNull(slots[1 - next]) || compare_pieces(slots[1 - next], slots[next]) <= 0;
	for (int i = 0; i < lengthof(slots); i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	tuplestore_rescan(rows);
	return ordered;
}

/* The rows of a transition table, read in the order of pieces. */
typedef struct OrderedRows
{
	Tuplestorestate *rows;
	Tuplesortstate *sort;		/* NULL if rows is in this order already */
	TupleTableSlot *slot;
} OrderedRows;

static void
order_rows(OrderedRows *ordered, Tuplestorestate *rows, TupleDesc tupdesc)
{
	AttrNumber	columns[] = {EVENTS_PIECE_ID + 1, EVENTS_ACCOUNT + 1};
	Oid			collations[] = {C_COLLATION_OID, C_COLLATION_OID};
	Oid			less = lookup_type_cache(TEXTOID, TYPECACHE_LT_OPR)->lt_opr;
	Oid			operators[] = {less, less};
	bool		nulls_first[] = {false, false};

	ordered->rows = rows;
	ordered->sort = NULL;
	ordered->slot = MakeSingleTupleTableSlot(tupdesc, &TTSOpsMinimalTuple);
	if (in_piece_order(rows, tupdesc))
		return;

	ordered->sort = tuplesort_begin_heap(tupdesc, lengthof(columns), columns, operators, collations,
										 nulls_first, work_mem, NULL, TUPLESORT_NONE);
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
check_trigger_call(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		trigger->tg_newtable == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"events_inserted\" must be fired AFTER INSERT FOR EACH STATEMENT with a transition table")));
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
 * Locks: ROW EXCLUSIVE on the tables that are written.  Rows of pieces are
 * locked before rows of campaigns, and in key order within each table.  Errors:
 * 39P01 if the function is called in any other way; 55000 and 0A000 as for
 * check_columns.
 */
Datum
postalytics_events_inserted(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Derivation *derivation;
	OrderedRows ordered;

	check_trigger_call(fcinfo);
	if (tuplestore_tuple_count(trigger->tg_newtable) == 0)
		return PointerGetDatum(NULL);

	check_columns(trigger->tg_relation, events_columns, N_EVENTS_COLUMNS);
	SPI_connect();
	derivation = derive_begin(DERIVE_NEW);
	order_rows(&ordered, trigger->tg_newtable, RelationGetDescr(trigger->tg_relation));
	while (next_row(&ordered))
		derive_slot(derivation, ordered.slot);
	end_rows(&ordered);
	derive_end(derivation);
	SPI_finish();
	return PointerGetDatum(NULL);
}
