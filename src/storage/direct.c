/*
 * direct.c
 *		Inserts, updates and upserts rows without a query.
 *
 * These functions take the same steps as INSERT ... ON CONFLICT
 * (nodeModifyTable.c), but avoid two costs.  Setting up a query costs more than
 * writing a row, and merging two rows with SQL expressions costs more than with
 * a C function.  Triggers, rules, check constraints, generated columns and
 * row-level security are not applied, so a table that has any of them must be
 * written by a query.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "base/compat.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/direct.h"
#include "storage/lmgr.h"
#include "storage/lookup.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

struct DirectTable
{
	Relation	relation;
	int			ncolumns;		/* number of columns; all later ones were
								 * dropped */
	EState	   *estate;
	ResultRelInfo *result;
	TupleTableSlot *row;
	TupleTableSlot *stored;		/* the stored row with the same key */
	List	   *key;			/* one OID, of the primary key's index; NIL
								 * until the index is needed */
	Relation	key_index;
	IndexScanDesc key_scan;
	int			nkeys;			/* number of columns of the primary key */
	ScanKeyData keys[MAX_LOOKUP_KEYS];
	SnapshotData any;			/* sees uncommitted rows of other
								 * transactions, too */
	CommandId	command;
};

/*
 * True if a table has exactly these columns, and nothing except its triggers
 * requires the executor.  The current user is the table's owner, to whom
 * row-level security does not apply unless it is forced.
 */
static bool
is_plain(Relation relation, const TableColumn *columns, int ncolumns)
{
	const TupleDesc tupdesc = RelationGetDescr(relation);

	if (!has_columns(relation, columns, ncolumns))
		return false;
	for (int i = ncolumns; i < tupdesc->natts; i++)
		if (!TupleDescAttr(tupdesc, i)->attisdropped)
			return false;
	for (int i = 0; i < ncolumns; i++)
		if (TupleDescAttr(tupdesc, i)->attnotnull && !columns[i].not_null)
			return false;
	return (tupdesc->constr == NULL ||
			(tupdesc->constr->num_check == 0 && !tupdesc->constr->has_generated_stored)) &&
		check_enable_rls(RelationGetRelid(relation), InvalidOid, true) != RLS_ENABLED &&
		relation->rd_rules == NULL;
}

/*
 * True if rows with these columns may be written to a table without a query.
 */
bool
direct_allowed(Relation relation, const TableColumn *columns, int ncolumns)
{
	return relation->rd_rel->relkind == RELKIND_RELATION &&
		relation->trigdesc == NULL &&
		is_plain(relation, columns, ncolumns);
}

/*
 * True if rows may be written to the partitions of a table without a query,
 * provided that the caller does the work of the named trigger.  That trigger
 * must be enabled, and must be the table's only trigger.
 */
bool
direct_allowed_below(Relation parent, const TableColumn *columns, int ncolumns,
					 const char *trigger)
{
	const TriggerDesc *triggers = parent->trigdesc;

	return SessionReplicationRole == SESSION_REPLICATION_ROLE_ORIGIN &&
		triggers != NULL && triggers->numtriggers == 1 &&
		strcmp(triggers->triggers[0].tgname, trigger) == 0 &&
		triggers->triggers[0].tgenabled == TRIGGER_FIRES_ON_ORIGIN &&
		is_plain(parent, columns, ncolumns);
}

/*
 * Prepare to write to the first ncolumns columns of an open table, on which
 * the caller holds RowExclusiveLock.  Error 25006 in a read-only transaction.
 */
DirectTable *
direct_open(Relation relation, int ncolumns)
{
	EState	   *estate = CreateExecutorState();
	MemoryContext caller = MemoryContextSwitchTo(estate->es_query_cxt);
	DirectTable *table = palloc0(sizeof(DirectTable));

	PreventCommandIfReadOnly("INSERT");
	CommandCounterIncrement();	/* to see what this transaction has written */
	table->relation = relation;
	table->ncolumns = ncolumns;
	table->estate = estate;
	table->result = makeNode(ResultRelInfo);
	InitResultRelInfo(table->result, relation, 0, NULL, 0);
	ExecOpenIndices(table->result, true);
	table->row = table_slot_create(relation, NULL);
	table->stored = table_slot_create(relation, NULL);
	table->command = GetCurrentCommandId(true);
	MemoryContextSwitchTo(caller);
	return table;
}

void
direct_close(DirectTable *table)
{
	if (table->key != NIL)
	{
		index_endscan(table->key_scan);
		index_close(table->key_index, NoLock);
	}
	ExecDropSingleTupleTableSlot(table->row);
	ExecDropSingleTupleTableSlot(table->stored);
	ExecCloseIndices(table->result);
	FreeExecutorState(table->estate);
	CommandCounterIncrement();
}

/* Store the values in table->row.  Dropped columns are NULL. */
static void
store_row(DirectTable *table, const Datum *values, const bool *nulls)
{
	ExecClearTuple(table->row);
	memset(table->row->tts_isnull, true, RelationGetDescr(table->relation)->natts * sizeof(bool));
	memcpy(table->row->tts_values, values, table->ncolumns * sizeof(Datum));
	memcpy(table->row->tts_isnull, nulls, table->ncolumns * sizeof(bool));
	ExecStoreVirtualTuple(table->row);
}

/*
 * Insert table->row, but remove it again if another session has inserted a row
 * with the same key meanwhile.  Returns false in that case.
 */
static bool
insert_speculatively(DirectTable *table)
{
	TransactionId transaction = GetCurrentTransactionId();
	uint32		token = SpeculativeInsertionLockAcquire(transaction);
	bool		conflict = false;

	table_tuple_insert_speculative(table->relation, table->row, table->command, 0, NULL, token);
	compat_insert_index_tuples(table->result, table->row, table->estate, false,
							   &conflict, table->key, false);
	table_tuple_complete_speculative(table->relation, table->row, token, !conflict);
	SpeculativeInsertionLockRelease(transaction);
	return !conflict;
}

/*
 * Raise error 40001 if the transaction's snapshot cannot see the stored row.
 */
static void
check_visible(DirectTable *table)
{
	bool		isnull;
	Datum		writer;

	if (!IsolationUsesXactSnapshot())
		return;
	writer = slot_getsysattr(table->stored, MinTransactionIdAttributeNumber, &isnull);
	if (!TransactionIdIsCurrentTransactionId(DatumGetTransactionId(writer)) &&
		!table_tuple_satisfies_snapshot(table->relation, table->stored, GetActiveSnapshot()))
		raise_serialization_failure();
}

/*
 * Insert a row, unless a stored row has the same value of any unique key.  In
 * that case, returns false, and direct_stored returns the stored row.  Waits
 * for a transaction that is inserting such a row.  If expect_new is true, the
 * row is inserted without searching for a stored row first.  This is cheaper if
 * there is no such row, but leaves a dead row behind if there is.  Error 40001
 * if the transaction's snapshot cannot see the stored row.
 */
bool
direct_insert(DirectTable *table, const Datum *values, const bool *nulls, bool expect_new)
{
	MemoryContext caller = MemoryContextSwitchTo(GetPerTupleMemoryContext(table->estate));
	ItemPointerData place;
	bool		inserted;

	store_row(table, values, nulls);
	inserted = expect_new && insert_speculatively(table);
	while (!inserted &&
		   compat_check_index_constraints(table->result, table->row, table->estate, &place, NIL))
		inserted = insert_speculatively(table);
	if (!inserted)
	{
		if (!table_tuple_fetch_row_version(table->relation, &place, SnapshotAny, table->stored))
			elog(ERROR, "could not fetch a row of \"%s\"",
				 RelationGetRelationName(table->relation));
		check_visible(table);
	}
	MemoryContextSwitchTo(caller);
	ResetPerTupleExprContext(table->estate);
	return inserted;
}

/* Return the stored row that prevented the last direct_insert. */
TupleTableSlot *
direct_stored(DirectTable *table)
{
	return table->stored;
}

/* ---- upserts ---- */

/*
 * Open the index of the primary key for upserts, and begin a scan of it.  The
 * scan is kept for all lookups, because beginning a scan is the most expensive
 * part of a lookup.
 */
static void
open_key(DirectTable *table)
{
	MemoryContext caller = MemoryContextSwitchTo(table->estate->es_query_cxt);
	Oid			index = compat_primary_key(table->relation);
	Relation	key;

	CheckCmdReplicaIdentity(table->relation, CMD_UPDATE);
	key = index_open(index, RowExclusiveLock);
	table->nkeys = IndexRelationGetNumberOfKeyAttributes(key);
	Assert(table->nkeys <= MAX_LOOKUP_KEYS);
	for (int i = 0; i < table->nkeys; i++)
		index_key(&table->keys[i], key, i + 1, BTEqualStrategyNumber, (Datum) 0);
	InitDirtySnapshot(table->any);
	table->key_index = key;
	table->key_scan = compat_index_beginscan(table->relation, key, &table->any, table->nkeys);
	table->key = list_make1_oid(index);
	MemoryContextSwitchTo(caller);
}

/*
 * Release the index page that the scan has pinned.  Otherwise VACUUM could wait
 * for the pin while this transaction waits for another transaction, which may
 * wait for VACUUM.  The deadlock detector does not see pins.
 */
static void
release_pins(DirectTable *table)
{
	index_rescan(table->key_scan, table->keys, table->nkeys, NULL, 0);
}

/* Wait for the transaction that is modifying the stored row. */
static void
wait_for_writer(DirectTable *table)
{
	ItemPointerData place = table->stored->tts_tid;

	ExecClearTuple(table->stored);
	release_pins(table);
	if (TransactionIdIsValid(table->any.xmin) && table->any.speculativeToken != 0)
		SpeculativeInsertionWait(table->any.xmin, table->any.speculativeToken);
	else
		XactLockTableWait(TransactionIdIsValid(table->any.xmin) ? table->any.xmin : table->any.xmax,
						  table->relation, &place, XLTW_InsertIndex);
}

/*
 * Find the stored row that has the key values in table->keys.  Returns false if
 * there is none.  May wait for other transactions.  Leaves no index page
 * pinned, because the update of the row may also have to wait.
 */
static bool
search(DirectTable *table)
{
	for (;;)
	{
		index_rescan(table->key_scan, table->keys, table->nkeys, NULL, 0);
		if (!index_getnext_slot(table->key_scan, ForwardScanDirection, table->stored))
			return false;
		if (!TransactionIdIsValid(table->any.xmin) && !TransactionIdIsValid(table->any.xmax))
		{
			release_pins(table);
			return true;
		}
		wait_for_writer(table);
	}
}

/*
 * Find the stored row that has the primary key of table->row.  Returns false if
 * there is none.  The scan allocates memory in its own context.
 */
static bool
find_stored(DirectTable *table)
{
	const int16 *columns = table->key_index->rd_index->indkey.values;
	MemoryContext caller = MemoryContextSwitchTo(table->estate->es_query_cxt);
	bool		found;

	for (int i = 0; i < table->nkeys; i++)
		table->keys[i].sk_argument = table->row->tts_values[columns[i] - 1];
	found = search(table);
	MemoryContextSwitchTo(caller);
	return found;
}

/*
 * Replace the stored row with table->row.  Waits for a transaction that has
 * locked the stored row.  If the stored row has been updated or deleted
 * meanwhile, returns false, or raises error 40001 if the isolation level does
 * not allow a newer snapshot.
 */
static bool
replace_stored(DirectTable *table)
{
	ItemPointerData place = table->stored->tts_tid;
	TM_Result	result = compat_tuple_update(table->relation, &place, table->row,
											 table->command, table->result, table->estate);

	ExecClearTuple(table->stored);
	if (result == TM_Ok)
		return true;
	if (result != TM_Updated && result != TM_Deleted)
		elog(ERROR, "could not update a row of \"%s\": %d",
			 RelationGetRelationName(table->relation), (int) result);
	if (IsolationUsesXactSnapshot())
		raise_serialization_failure();
	return false;
}

typedef enum MergeResult
{
	MERGE_NOT_FOUND,			/* there is no stored row */
	MERGE_UNCHANGED,
	MERGE_WRITTEN
} MergeResult;

/*
 * Merge a row with the stored row that has the same primary key.  If the result
 * is MERGE_NOT_FOUND, table->row holds the new row.
 */
static MergeResult
merge_stored(DirectTable *table, const Datum *values, const bool *nulls, DirectMerge merge)
{
	if (table->key == NIL)
		open_key(table);
	for (;;)
	{
		store_row(table, values, nulls);
		if (!find_stored(table))
			return MERGE_NOT_FOUND;
		check_visible(table);
		slot_getallattrs(table->stored);
		if (!merge(table->row->tts_values, table->row->tts_isnull,
				   table->stored->tts_values, table->stored->tts_isnull))
		{
			ExecClearTuple(table->stored);
			return MERGE_UNCHANGED;
		}
		if (replace_stored(table))
			return MERGE_WRITTEN;
	}
}

/*
 * Find the stored row that has the same primary key as the given row, and
 * replace it with the result of merge.  Returns false if there is no such row,
 * or if merge leaves it unchanged.  Waits for a transaction that has locked the
 * stored row.  Error 40001 if the transaction's snapshot cannot see the stored
 * row.
 */
bool
direct_update(DirectTable *table, const Datum *values, const bool *nulls, DirectMerge merge)
{
	MemoryContext caller = MemoryContextSwitchTo(GetPerTupleMemoryContext(table->estate));
	MergeResult result = merge_stored(table, values, nulls, merge);

	MemoryContextSwitchTo(caller);
	ResetPerTupleExprContext(table->estate);
	return result == MERGE_WRITTEN;
}

/* As direct_update, but insert the row if no stored row has its primary key. */
void
direct_upsert(DirectTable *table, const Datum *values, const bool *nulls, DirectMerge merge)
{
	MemoryContext caller = MemoryContextSwitchTo(GetPerTupleMemoryContext(table->estate));

	while (merge_stored(table, values, nulls, merge) == MERGE_NOT_FOUND && !insert_speculatively(table))
		;
	MemoryContextSwitchTo(caller);
	ResetPerTupleExprContext(table->estate);
}

/* Make the rows written so far visible, so that they can be updated again. */
void
direct_next_command(DirectTable *table)
{
	CommandCounterIncrement();
	table->command = GetCurrentCommandId(true);
}
