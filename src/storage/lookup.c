/*
 * lookup.c
 *		Finds rows of a table through one index, and locks them, without a query.
 *
 * The plan of a query depends on statistics, and a cached plan depends on the
 * statistics at the time of planning.  A session that lives for months needs
 * lookups whose cost depends only on the rows found, so the callers specify the
 * index.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/itup.h"
#include "access/nbtree.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "storage/lookup.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/*
 * Initialize a scan key that compares a column of the index, counted from 1,
 * with a value of the column's type.
 */
void
index_key(ScanKey key, Relation index, int column, StrategyNumber strategy, Datum value)
{
	Oid			type = index->rd_opcintype[column - 1];
	Oid			operator = get_opfamily_member(index->rd_opfamily[column - 1], type, type, strategy);

	if (!OidIsValid(operator))
		elog(ERROR, "missing operator %d of index \"%s\"", strategy, RelationGetRelationName(index));
	ScanKeyEntryInitialize(key, 0, column, strategy, InvalidOid,
						   index->rd_indcollation[column - 1], get_opcode(operator), value);
}

/*
 * Prepare to find rows of an open table through an index.  The index is locked
 * in ACCESS SHARE mode until lookup_end.  The snapshot must outlive the lookup.
 */
void
lookup_begin(Lookup *lookup, Relation table, Oid index, Snapshot snapshot, int nkeys)
{
	Assert(nkeys <= MAX_LOOKUP_KEYS);
	lookup->table = table;
	lookup->index = index_open(index, AccessShareLock);
	lookup->scan = compat_index_beginscan(table, lookup->index, snapshot, nkeys);
	lookup->slot = table_slot_create(table, NULL);
	lookup->nkeys = nkeys;
}

/* Set the i-th key, which takes effect at the next lookup_rescan. */
void
lookup_key(Lookup *lookup, int i, int column, StrategyNumber strategy, Datum value)
{
	Assert(i < lookup->nkeys);
	index_key(&lookup->keys[i], lookup->index, column, strategy, value);
}

/*
 * Set the i-th key to a row comparison of several columns, beginning with the
 * given one.  A lookup can have one row comparison.
 */
void
lookup_row_key(Lookup *lookup, int i, int column, StrategyNumber strategy, int count, const Datum *values)
{
	Relation	index = lookup->index;

	Assert(i < lookup->nkeys && count <= MAX_ROW_KEY);
	for (int j = 0; j < count; j++)
	{
		int			nth = column + j - 1;
		Oid			type = index->rd_opcintype[nth];
		Oid			compare = get_opfamily_proc(index->rd_opfamily[nth], type, type, BTORDER_PROC);

		if (!OidIsValid(compare))
			elog(ERROR, "missing comparison function of index \"%s\"", RelationGetRelationName(index));
		ScanKeyEntryInitialize(&lookup->row[j], SK_ROW_MEMBER | (j == count - 1 ? SK_ROW_END : 0),
							   nth + 1, strategy, InvalidOid, index->rd_indcollation[nth], compare, values[j]);
	}
	MemSet(&lookup->keys[i], 0, sizeof(ScanKeyData));
	lookup->keys[i].sk_flags = SK_ROW_HEADER;
	lookup->keys[i].sk_attno = column;
	lookup->keys[i].sk_strategy = strategy;
	lookup->keys[i].sk_argument = PointerGetDatum(lookup->row);
}

/*
 * Restart the scan with the current keys.  This releases the pins of the scan,
 * and must be done before waiting for another transaction: VACUUM waits for a
 * pinned index page, and the deadlock detector does not see pins.
 */
void
lookup_rescan(Lookup *lookup)
{
	ExecClearTuple(lookup->slot);
	index_rescan(lookup->scan, lookup->keys, lookup->nkeys, NULL, 0);
}

/* Put the next row into the slot.  Returns false if there are no more rows. */
bool
lookup_next(Lookup *lookup, ScanDirection direction)
{
	return index_getnext_slot(lookup->scan, direction, lookup->slot);
}

/*
 * Advance to the next index entry, and read all of its columns, which must be
 * NOT NULL.  Values passed by reference point into the index page.  The scan's
 * xs_want_itup must be set.  Returns false at the end of the scan.
 */
bool
lookup_next_entry(Lookup *lookup, Datum *values)
{
	bool		nulls[INDEX_MAX_KEYS];

	if (index_getnext_tid(lookup->scan, ForwardScanDirection) == NULL)
		return false;
	index_deform_tuple(lookup->scan->xs_itup, lookup->scan->xs_itupdesc, values, nulls);
	return true;
}

/*
 * Put the row of the current index entry into the slot.  Returns false if no
 * version of the row is visible to the snapshot.
 */
bool
lookup_row(Lookup *lookup)
{
	return index_fetch_heap(lookup->scan, lookup->slot);
}

/*
 * Restart the scan, and put the first row into the slot.  Returns false if no
 * row has the current keys.
 */
bool
lookup_first(Lookup *lookup)
{
	lookup_rescan(lookup);
	return lookup_next(lookup, ForwardScanDirection);
}

void
lookup_end(Lookup *lookup)
{
	ExecDropSingleTupleTableSlot(lookup->slot);
	index_endscan(lookup->scan);
	index_close(lookup->index, AccessShareLock);
}

/*
 * Lock the row whose ctid is in place.  The slot receives the row, and place is
 * set to the ctid of the locked version.  Returns false if the row was not
 * locked.  This happens if the row was deleted, or if wait is LockWaitSkip and
 * another transaction has locked or changed the row.  Error 40001 if the row
 * was changed or deleted and the isolation level does not allow a newer
 * snapshot.
 */
bool
lock_row(Relation table, ItemPointer place, LockTupleMode mode, LockWaitPolicy wait, TupleTableSlot *slot)
{
	TM_FailureData failure;
	bool		find_last = wait == LockWaitBlock && !IsolationUsesXactSnapshot();
	int			flags = find_last ? TUPLE_LOCK_FLAG_FIND_LAST_VERSION : 0;
	TM_Result	result = table_tuple_lock(table, place, GetActiveSnapshot(), slot,
										  GetCurrentCommandId(true), mode, wait, flags, &failure);

	if ((result == TM_Updated || result == TM_Deleted) && IsolationUsesXactSnapshot())
		raise_serialization_failure();
	if (result != TM_Ok)
		return false;
	*place = slot->tts_tid;
	return true;
}

/* Raise error 40001, with the message of the server. */
void
raise_serialization_failure(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access due to concurrent update")));
}
