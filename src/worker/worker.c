/*
 * worker.c
 *		The background worker of a database.  It notifies syncs of new deliveries,
 *		so that the writers need not do so, and of deliveries that have become
 *		due.  It also does maintenance.
 *
 * A worker holds no lock and no snapshot while it sleeps.  README describes
 * its states.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/extension.h"
#include "base/query.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "rights/settings.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "sync/notification.h"
#include "sync/sync.h"
#include "sync/wake.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/maintenance.h"
#include "worker/process.h"

PGDLLEXPORT void postalytics_worker_main(Datum arg);

/* The woken syncs (wake.h) taken from the slot. */
typedef struct WokenSyncs
{
	int			nwoken;
	bool		all_woken;
	Woken		woken[MAX_WOKEN];
} WokenSyncs;

static WorkerSlot *my_slot;

/* ---- the slot in shared memory ---- */

/*
 * Mark this worker as not running, unless its slot was freed and now belongs to
 * another worker.
 */
static void
release_slot(int code, Datum arg)
{
	ereport(LOG,
			(errmsg("background worker of extension \"%s\" stopped in database with OID %u",
					EXTENSION_NAME, MyDatabaseId)));
	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	if (my_slot->pid == MyProcPid)
	{
		my_slot->pid = 0;
		my_slot->latch = NULL;
		my_slot->idle = false;
	}
	LWLockRelease(wake_shared->lock);
}

/*
 * Claim the slot of the database, or a free slot.  Returns false if there is none.
 * Exits if the database already has a worker, which an earlier launcher started.
 */
static bool
claim_slot(void)
{
	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	my_slot = wake_find_slot(MyDatabaseId);
	if (my_slot != NULL && is_alive(my_slot->pid))
	{
		LWLockRelease(wake_shared->lock);
		proc_exit(0);
	}
	if (my_slot == NULL)
	{
		my_slot = wake_find_slot(InvalidOid);
		if (my_slot != NULL)
			memset(my_slot, 0, sizeof(WorkerSlot));
	}
	if (my_slot != NULL)
	{
		my_slot->database = MyDatabaseId;
		my_slot->pid = MyProcPid;
		my_slot->latch = MyLatch;
		my_slot->started_at = GetCurrentTimestamp();
		if (wake_shared->launcher != NULL)
			SetLatch(wake_shared->launcher);	/* to check the next database */
	}
	LWLockRelease(wake_shared->lock);
	if (my_slot == NULL)
		return false;
	before_shmem_exit(release_slot, (Datum) 0);
	return true;
}

/*
 * Free the slot of the database, which does not have the extension, unless the
 * slot belongs to another worker that is alive.
 */
static void
free_slot(void)
{
	WorkerSlot *slot;

	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	slot = wake_find_slot(MyDatabaseId);
	if (slot != NULL && (slot->pid == MyProcPid || !is_alive(slot->pid)))
	{
		slot->database = InvalidOid;
		slot->pid = 0;
	}
	LWLockRelease(wake_shared->lock);
}

/* Move the woken syncs from the slot to syncs. */
static void
take_woken(WokenSyncs *syncs)
{
	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	syncs->nwoken = my_slot->nwoken;
	syncs->all_woken = my_slot->all_woken;
	memcpy(syncs->woken, my_slot->woken, my_slot->nwoken * sizeof(Woken));
	my_slot->nwoken = 0;
	my_slot->all_woken = false;
	LWLockRelease(wake_shared->lock);
}

/*
 * Allow sessions to set the latch from now on.  Returns false, and does not allow
 * it, if syncs are already woken.
 */
static bool
go_idle(void)
{
	bool		idle;

	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	idle = my_slot->idle = my_slot->nwoken == 0 && !my_slot->all_woken;
	LWLockRelease(wake_shared->lock);
	return idle;
}

/* Show an error in worker_status(). */
static void
show_error(const char *message)
{
	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	strlcpy(my_slot->error, message, MAX_ERROR);
	my_slot->failed_at = GetCurrentTimestamp();
	LWLockRelease(wake_shared->lock);
}

/* ---- notifications ---- */

/* Parameters of count_query and next_query. */
enum
{
	DUE_SYNC, DUE_AFTER, N_DUE
};

static SqlQuery count_query = {
	.sql = "SELECT count(*)"
	" FROM postalytics.deliveries_unfinished AS d"
	" WHERE d.sync = $1"
	"   AND d.due_at > $2"
	"   AND d.due_at <= now()"
	"   AND (d.lease_until > now()) IS NOT TRUE",
	.result = SPI_OK_SELECT,
	.nparameters = N_DUE,
	.types = {[DUE_SYNC] = TEXTOID,[DUE_AFTER] = TIMESTAMPTZOID}
};

static SqlQuery next_query = {
	.sql = "SELECT d.due_at"
	" FROM postalytics.deliveries_unfinished AS d"
	" WHERE d.sync = $1"
	"   AND d.due_at > $2"
	" ORDER BY d.due_at"
	" LIMIT 1",
	.result = SPI_OK_SELECT,
	.nparameters = N_DUE,
	.types = {[DUE_SYNC] = TEXTOID,[DUE_AFTER] = TIMESTAMPTZOID}
};

/*
 * Run a query on the deliveries of a sync that are due after a time, and return
 * its value.  Returns the argument none if there is no row.
 */
static Datum
query_deliveries(SqlQuery *query, const char *sync, TimestampTz after, Datum none)
{
	Datum		values[N_DUE] = {
		[DUE_SYNC] = CStringGetTextDatum(sync),
		[DUE_AFTER] = TimestampTzGetDatum(after)
	};
	bool		isnull;

	query_run(query, values, NULL);
	if (SPI_processed == 0)
		return none;
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
}

/*
 * Return the number of deliveries of a sync that have become due after a time
 * and are not leased.
 */
static int64
count_due(const char *sync, TimestampTz after)
{
	return DatumGetInt64(query_deliveries(&count_query, sync, after, Int64GetDatum(0)));
}

/*
 * Return the first time after a given one at which a delivery of a sync is due;
 * DT_NOEND if there is none.
 */
static TimestampTz
next_due_after(const char *sync, TimestampTz after)
{
	return DatumGetTimestampTz(query_deliveries(&next_query, sync, after, TimestampTzGetDatum(DT_NOEND)));
}

static const Woken *
find_woken(const WokenSyncs *syncs, const char *sync)
{
	for (int i = 0; i < syncs->nwoken; i++)
		if (strcmp(syncs->woken[i].sync, sync) == 0)
			return &syncs->woken[i];
	return NULL;
}

/*
 * Notify the woken syncs, and the syncs with a delivery that has become due since
 * the last check, which was at *checked_at.  Updates *checked_at, and returns the
 * time at which the next delivery is due; DT_NOEND if there is none.
 */
static TimestampTz
notify_syncs(const WokenSyncs *syncs, TimestampTz *checked_at)
{
	TimestampTz next = DT_NOEND;
	int64		sent = 0;

	transaction_begin("notifying");
	for (const Sync *sync = first_sync(); sync != NULL; sync = sync->next)
	{
		const Woken *woken = find_woken(syncs, sync->name);
		int64		count;

		if (!sync->enabled || !sync->durable)
			continue;
		count = woken != NULL ? woken->count : 0;

		/*
		 * A woken sync with a count of zero comes from nack.  Its deliveries
		 * may have been due at the last check already.
		 */
		if (count == 0)
			count = count_due(sync->name, syncs->all_woken || woken != NULL ? DT_NOBEGIN : *checked_at);
		if (count > 0)
		{
			notify_sync(sync->name, sync->channel, count);
			sent++;
		}
		next = Min(next, next_due_after(sync->name, GetCurrentTransactionStartTimestamp()));
	}
	*checked_at = GetCurrentTransactionStartTimestamp();
	transaction_commit();
	if (sent > 0)
	{
		LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
		my_slot->notified_at = GetCurrentTimestamp();
		my_slot->notifications += sent;
		LWLockRelease(wake_shared->lock);
	}
	return next;
}

/* ---- the main loop ---- */

static bool
extension_exists(void)
{
	bool		exists;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	exists = OidIsValid(get_extension_oid(EXTENSION_NAME, true));
	CommitTransactionCommand();
	return exists;
}

/* Sleep until a time, even if the latch is set. */
static void
sleep_until(TimestampTz time)
{
	long		left;

	while ((left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), time)) > 0)
		sleep_for(Min(left, CHECK_INTERVAL));
}

static bool
maintenance_is_due(void)
{
	return setting_maintenance_interval > 0 &&
		TimestampDifferenceExceeds(Max(my_slot->maintained_at, my_slot->started_at),
								   GetCurrentTimestamp(),
								   my_slot->maintained_at == 0 ? CHECK_INTERVAL :
								   setting_maintenance_interval * 1000);
}

/*
 * Run a step of maintenance, and show its time, and any error, in worker_status().
 * True if other steps follow.
 */
static bool
maintain_step(void)
{
	bool		more;
	char	   *failure = run_maintenance(&more);

	if (failure != NULL)
	{
		show_error(failure);
		pfree(failure);
	}
	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	my_slot->maintained_at = GetCurrentTimestamp();
	LWLockRelease(wake_shared->lock);
	return more;
}

static void
worker_loop(void)
{
	static WokenSyncs syncs;
	TimestampTz checked_at = DT_NOBEGIN;	/* at first, all due deliveries
											 * are announced */

	bool		maintaining = false;

	for (;;)
	{
		TimestampTz next;

		if (!extension_exists())
		{
			free_slot();
			proc_exit(0);
		}
		take_woken(&syncs);
		next = notify_syncs(&syncs, &checked_at);
		if (maintaining || maintenance_is_due())
			maintaining = maintain_step();
		sleep_until(TimestampTzPlusMilliseconds(checked_at, setting_notify_interval));
		if (!maintaining && go_idle())
		{
			long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next);

			sleep_for(Min(left, CHECK_INTERVAL));
		}
	}
}

/* Main function of the background worker; its argument is the database OID. */
void
postalytics_worker_main(Datum arg)
{
	process_begin();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	if (!extension_exists())
	{
		free_slot();
		proc_exit(0);
	}
	if (!claim_slot())
		ereport(FATAL,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many databases with extension \"%s\"", EXTENSION_NAME),
				 errdetail("At most %d databases can have a background worker.", MAX_WORKERS),
				 errhint("Set \"%s.worker_databases\" to the databases that need one.", EXTENSION_NAME)));

	ereport(LOG,
			(errmsg("background worker of extension \"%s\" started in database with OID %u",
					EXTENSION_NAME, MyDatabaseId)));

	/*
	 * Names are looked up in pg_catalog, and the queue must be read through
	 * its index.
	 */
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("enable_bitmapscan", "off", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("plan_cache_mode", "force_generic_plan", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("jit", "off", PGC_USERSET, PGC_S_SESSION);
	/* Maintenance requires READ COMMITTED. */
	SetConfigOption("default_transaction_isolation", "read committed", PGC_USERSET, PGC_S_SESSION);

	PG_TRY();
	{
		worker_loop();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(TopMemoryContext);
		show_error(CopyErrorData()->message);
		PG_RE_THROW();
	}
	PG_END_TRY();
}
