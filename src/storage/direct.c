/*
 * direct.c
 *		Rows written straight into a table and its indexes.
 *
 * What INSERT … ON CONFLICT does, by the same steps (nodeModifyTable.c), but
 * without a query: setting one up costs more than writing a row, and merging
 * two rows by expressions more than by a function.  It knows nothing of
 * triggers, rules, checks and the like; so a table that has any must be
 * written by a query.
 */
#include "postalytics_status.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "base/compat.h"
#include "executor/executor.h"
#include "storage/lookup.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

struct DirectTable
{
	Relation	relation;
	int			ncolumns;		/* of the table; columns after them were dropped */
	EState	   *estate;
	ResultRelInfo *result;
	TupleTableSlot *row;
	TupleTableSlot *stored;		/* that has the same key */
	List	   *key;			/* the key's index, or NIL for any unique one */
	Relation	key_index;
	IndexScanDesc key_scan;
	ScanKeyData key_value;
	SnapshotData any;			/* of others' too that are not committed yet */
	CommandId	command;
};

/* True if nothing except triggers requires the executor. */
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
		!relation->rd_rel->relrowsecurity &&
		relation->rd_rules == NULL;
}

/* May rows of these columns go straight into a table? */
bool
direct_allowed(Relation relation, const TableColumn *columns, int ncolumns)
{
	return relation->rd_rel->relkind == RELKIND_RELATION &&
		relation->trigdesc == NULL &&
		is_plain(relation, columns, ncolumns);
}

/*
 * And into the leaves of a partitioned one, by somebody who stands in for its
 * trigger?  It must be enabled, and be the only one.
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
 * Write to the first ncolumns of an open table, on which the caller holds
 * RowExclusiveLock.  Error 25006 in a read-only transaction.
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

static void
set_row(DirectTable *table, const Datum *values, const bool *nulls)
{
	ExecClearTuple(table->row);
	memset(table->row->tts_isnull, true, RelationGetDescr(table->relation)->natts * sizeof(bool));
	memcpy(table->row->tts_values, values, table->ncolumns * sizeof(Datum));
	memcpy(table->row->tts_isnull, nulls, table->ncolumns * sizeof(bool));
	ExecStoreVirtualTuple(table->row);
}

/*
 * Insert the row, and take it back if another with its key was quicker: is it
 * in?
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

void
raise_serialization_failure(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not serialize access due to concurrent update")));
}

/* Error 40001 where the transaction may not see the stored row. */
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
 * Insert a row; false if there is one already with any of its unique keys.
 * Waits for a transaction that is inserting one.  Who hopes that there is none
 * does not look first: cheaper if so, but else it leaves a dead row behind.
 * Error 40001 where the transaction's snapshot cannot see the other.
 */
bool
direct_insert(DirectTable *table, const Datum *values, const bool *nulls, bool hope)
{
	MemoryContext caller = MemoryContextSwitchTo(GetPerTupleMemoryContext(table->estate));
	ItemPointerData place;
	bool		inserted;

	set_row(table, values, nulls);
	inserted = hope && insert_speculatively(table);
	while (!inserted &&
		   compat_check_index_constraints(table->result, table->row, table->estate, &place, NIL))
		inserted = insert_speculatively(table);
	if (!inserted && IsolationUsesXactSnapshot())
	{
		if (!table_tuple_fetch_row_version(table->relation, &place, SnapshotAny, table->stored))
			elog(ERROR, "could not fetch a row of \"%s\"",
				 RelationGetRelationName(table->relation));
		check_visible(table);
		ExecClearTuple(table->stored);
	}
	MemoryContextSwitchTo(caller);
	ResetPerTupleExprContext(table->estate);
	return inserted;
}

/* ---- upserts ---- */

/*
 * Rows are the same, from now on, that have the same primary key, which is of
 * one column.  Its scan stays open, for it is the dearest part of a look.
 */
static void
open_key(DirectTable *table)
{
	MemoryContext caller = MemoryContextSwitchTo(table->estate->es_query_cxt);
	Oid			index = compat_primary_key(table->relation);
	Relation	key;

	CheckCmdReplicaIdentity(table->relation, CMD_UPDATE);
	key = index_open(index, RowExclusiveLock);
	Assert(IndexRelationGetNumberOfKeyAttributes(key) == 1);
	index_key(&table->key_value, key, 1, BTEqualStrategyNumber, (Datum) 0);
	InitDirtySnapshot(table->any);
	table->key_index = key;
	table->key_scan = compat_index_beginscan(table->relation, key, &table->any, 1);
	table->key = list_make1_oid(index);
	MemoryContextSwitchTo(caller);
}

/*
 * Release the index page that the scan has pinned.  VACUUM would wait for the
 * pin, and this transaction for another that may wait for VACUUM.  The deadlock
 * detector does not see pins.
 */
static void
release_pins(DirectTable *table)
{
	index_rescan(table->key_scan, &table->key_value, 1, NULL, 0);
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
 * Find the stored row that has the same key; may wait for other transactions.
 * Leaves no index page pinned, because updating the row can wait, too.
 */
static bool
search(DirectTable *table)
{
	for (;;)
	{
		index_rescan(table->key_scan, &table->key_value, 1, NULL, 0);
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

/* The same, in the memory that the scan must have. */
static bool
find_stored(DirectTable *table)
{
	AttrNumber	column = table->key_index->rd_index->indkey.values[0];
	MemoryContext caller = MemoryContextSwitchTo(table->estate->es_query_cxt);
	bool		found;

	table->key_value.sk_argument = table->row->tts_values[column - 1];
	found = search(table);
	MemoryContextSwitchTo(caller);
	return found;
}

/*
 * Put the row in the stored one's place; false if that has changed meanwhile.
 * Waits for a transaction that has locked it.
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

/*
 * Insert a row, or put what merge makes of it and the stored one that has its
 * primary key in that one's place.  Waits for whoever has that row.  Error
 * 40001 where the transaction's snapshot is older than it.
 */
void
direct_upsert(DirectTable *table, const Datum *values, const bool *nulls, DirectMerge merge)
{
	MemoryContext caller = MemoryContextSwitchTo(GetPerTupleMemoryContext(table->estate));
	bool		written = false;

	if (table->key == NIL)
		open_key(table);
	while (!written)
	{
		set_row(table, values, nulls);
		if (!find_stored(table))
			written = insert_speculatively(table);
		else
		{
			check_visible(table);
			slot_getallattrs(table->stored);
			merge(table->row->tts_values, table->row->tts_isnull,
				  table->stored->tts_values, table->stored->tts_isnull);
			written = replace_stored(table);
		}
	}
	MemoryContextSwitchTo(caller);
	ResetPerTupleExprContext(table->estate);
}
