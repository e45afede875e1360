/*
 * cache.c
 *		Keeps small tables in each session's memory, and reads them again when
 *		they have changed.
 *
 * A statement trigger on the table invalidates its relcache entry, which
 * reaches every session at commit.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "base/cache.h"
#include "base/compat.h"
#include "base/extension.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(postalytics_configuration_changed);

/*
 * List of all caches.  They share one callback, because a backend can register
 * only a few.
 */
static TableCache *caches;

/*
 * Relcache callback: mark the cache of a changed table as out of date, or all
 * caches if relation is InvalidOid.
 */
static void
mark_stale(Datum arg, Oid relation)
{
	for (TableCache *cache = caches; cache != NULL; cache = cache->next)
		if (!OidIsValid(relation) || cache->relation == relation)
			cache->relation = InvalidOid;
}

static void
register_cache(TableCache *cache)
{
	if (caches == NULL)
		CacheRegisterRelcacheCallback(mark_stale, (Datum) 0);
	cache->next = caches;
	caches = cache;
}

/* Call the cache's add function for each row that is visible to a snapshot. */
static void
read_table(TableCache *cache, Snapshot snapshot)
{
	Relation	rel = table_open(cache->relation, AccessShareLock);
	TableScanDesc scan;
	TupleTableSlot *slot;

	snapshot = RegisterSnapshot(snapshot);
	scan = compat_beginscan(rel, snapshot);
	slot = table_slot_create(rel, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		cache->add(slot);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

/*
 * True if a cache was read with a snapshot equivalent to the given one.  Any
 * commit that changed data changes xmax or xcnt or, on a standby, subxcnt.
 */
static bool
was_read_with(const TableCache *cache, Snapshot snapshot)
{
	return !(snapshot->takenDuringRecovery && snapshot->suboverflowed) &&
		cache->xmax == snapshot->xmax && cache->xcnt == snapshot->xcnt &&
		cache->subxcnt == snapshot->subxcnt && cache->curcid == snapshot->curcid;
}

/*
 * Read the cached table again if it has changed, or was replaced by DROP and
 * CREATE EXTENSION.  The table is read without a query, because the role that
 * inserts events has no privilege on it.  A parallel query must read the table
 * with its own snapshot, and the cache is then reused only for that snapshot.
 */
void
refresh_cache(TableCache *cache)
{
	Oid			relation = extension_relation(cache->table);
	bool		provisional = IsInParallelMode();
	Snapshot	snapshot = provisional ? GetActiveSnapshot() : NULL;
	MemoryContext caller;

	AcceptInvalidationMessages();	/* needed, as no table is locked yet */
	if (cache->complete && cache->relation == relation &&
		(!cache->provisional || (provisional && was_read_with(cache, snapshot))))
		return;

	cache->complete = false;
	if (cache->context == NULL)
		register_cache(cache);
	else						/* an outer caller may still use the old data */
		MemoryContextSetParent(cache->context, TopTransactionContext);
	cache->context = AllocSetContextCreate(TopMemoryContext,
										   "postalytics cache",
										   ALLOCSET_SMALL_SIZES);
	cache->relation = relation; /* before the table is read, because an
								 * invalidation can arrive meanwhile */
	caller = MemoryContextSwitchTo(cache->context);
	cache->provisional = provisional;
	if (provisional)
	{
		cache->xmax = snapshot->xmax;
		cache->xcnt = snapshot->xcnt;
		cache->subxcnt = snapshot->subxcnt;
		cache->curcid = snapshot->curcid;
	}
	cache->begin();
	read_table(cache, provisional ? snapshot : GetLatestSnapshot());
	if (cache->end != NULL)
		cache->end();
	MemoryContextSwitchTo(caller);
	cache->complete = true;
}

/*
 * configuration_changed(), a statement trigger on each cached table
 *
 * Invalidates the table's relcache entry, so that every session is notified of
 * the change at commit.  A restore and replication also fire this trigger, so
 * it must do nothing else.  Error 39P01 if it is not called as a trigger.
 */
Datum
postalytics_configuration_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", "configuration_changed")));
	CacheInvalidateRelcache(trigger->tg_relation);
	return PointerGetDatum(NULL);
}
