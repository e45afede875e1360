/*
 * worker.c
 *		The optional background worker: one a database with the extension, which
 *		notifies for the writers, wakes syncs when something is due, and calls
 *		maintain().  And the launcher that starts them.
 *
 * A worker holds no lock and no snapshot while it sleeps.  It is connected to
 * its database, which DROP DATABASE and its like must have for themselves: they
 * send it away first (see run_utility).
 */
#include "postalytics_status.h"

#include <signal.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "base/compat.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
#include "sync/wake.h"

PGDLLEXPORT void postalytics_launcher_main(Datum arg);
PGDLLEXPORT void postalytics_worker_main(Datum arg);

PG_FUNCTION_INFO_V1(postalytics_worker_status);
PG_FUNCTION_INFO_V1(postalytics_want_worker);

#define LAUNCHER_NAME	"postalytics_status launcher"
#define WORKER_NAME		"postalytics_status worker"

/* Milliseconds. */
#define LOOK_AGAIN		10000	/* for what nobody told the worker of */
#define FIRST_PAUSE		1000	/* before a worker that failed is started again */
#define LONGEST_PAUSE	60000
#define GOOD_LIFE		5000	/* a worker that lived as long did not fail at once */
#define POLL			10		/* for another process to have gone */

/* So many databases at a time are looked at for the extension. */
#define MAX_PROBES		2

/* ---- the worker ---- */

static WorkerSlot *my_slot;

/* What came to the worker since it last asked. */
typedef struct Taken
{
	int			nwoken;
	bool		all_woken;
	Woken		woken[MAX_WOKEN];
} Taken;

static bool
is_alive(int pid)
{
	return pid != 0 && BackendPidGetProc(pid) != NULL;
}

/* One that was given up may be another's by now. */
static void
release_slot(int code, Datum arg)
{
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
 * Take the database's slot, or a free one; false if there is none.  Ends the
 * process if the database has a worker: of a launcher that was before this one's.
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
			SetLatch(wake_shared->launcher);	/* which can look at the next database */
	}
	LWLockRelease(wake_shared->lock);
	if (my_slot == NULL)
		return false;
	before_shmem_exit(release_slot, (Datum) 0);
	return true;
}

/*
 * The extension was dropped, so no worker is needed: free the database's slot,
 * if it belongs to this worker or to one that has exited.
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

static void
take(Taken *taken)
{
	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	taken->nwoken = my_slot->nwoken;
	taken->all_woken = my_slot->all_woken;
	memcpy(taken->woken, my_slot->woken, my_slot->nwoken * sizeof(Woken));
	my_slot->nwoken = 0;
	my_slot->all_woken = false;
	LWLockRelease(wake_shared->lock);
}

/* From now on writers set the latch; false if there is something already. */
static bool
go_idle(void)
{
	bool		idle;

	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	idle = my_slot->idle = my_slot->nwoken == 0 && !my_slot->all_woken;
	LWLockRelease(wake_shared->lock);
	return idle;
}

static void
note_error(const char *message)
{
	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	strlcpy(my_slot->error, message, MAX_ERROR);
	my_slot->failed_at = GetCurrentTimestamp();
	LWLockRelease(wake_shared->lock);
}

static void
begin(const char *doing)
{
	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, doing);
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

static void
commit(void)
{
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
}

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

/* The value that a query of a sync's deliveries gives, or none if it has no row. */
static Datum
ask_deliveries(SPIPlanPtr *plan, const char *query, const char *sync, TimestampTz instant, Datum none)
{
	Oid			types[] = {TEXTOID, TIMESTAMPTZOID};
	Datum		values[] = {CStringGetTextDatum(sync), TimestampTzGetDatum(instant)};
	bool		isnull;

	if (SPI_execute_plan(keep_plan(plan, query, 2, types), values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "deliveries cannot be read");
	if (SPI_processed == 0)
		return none;
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
}

/* How many deliveries of a sync came due after since, and are not leased. */
static int64
count_due(const char *sync, TimestampTz since)
{
	static SPIPlanPtr plan;

	return DatumGetInt64(ask_deliveries(&plan,
										"SELECT count(*)"
										" FROM postalytics.deliveries_unfinished"
										" WHERE sync = $1"
										"   AND due_at > $2"
										"   AND due_at <= now()"
										"   AND (lease_until > now()) IS NOT TRUE",
										sync, since, Int64GetDatum(0)));
}

/* When the first delivery of a sync is due after an instant; DT_NOEND for never. */
static TimestampTz
next_due(const char *sync, TimestampTz after)
{
	static SPIPlanPtr plan;

	return DatumGetTimestampTz(ask_deliveries(&plan,
											  "SELECT due_at"
											  " FROM postalytics.deliveries_unfinished"
											  " WHERE sync = $1"
											  "   AND due_at > $2"
											  " ORDER BY due_at"
											  " LIMIT 1",
											  sync, after, TimestampTzGetDatum(DT_NOEND)));
}

static const Woken *
find_woken(const Taken *taken, const char *sync)
{
	for (int i = 0; i < taken->nwoken; i++)
		if (strcmp(taken->woken[i].sync, sync) == 0)
			return &taken->woken[i];
	return NULL;
}

/*
 * Notify the syncs that have something: that were woken, or of which something
 * came due since the last look.  Returns when to look again.
 */
static TimestampTz
notify_syncs(const Taken *taken, TimestampTz *looked_at)
{
	TimestampTz next = DT_NOEND;
	int64		sent = 0;

	begin("notifying");
	for (const Sync *sync = first_sync(); sync != NULL; sync = sync->next)
	{
		const Woken *woken = find_woken(taken, sync->name);
		int64		count;

		if (!sync->enabled || !sync->durable)
			continue;
		count = woken != NULL ? woken->count : 0;
		/* Who wakes it with none changed some, which may have been due at the last look. */
		if (count == 0)
			count = count_due(sync->name, taken->all_woken || woken != NULL ? DT_NOBEGIN : *looked_at);
		if (count > 0)
		{
			sync_notify(sync->name, sync->channel, count);
			sent++;
		}
		next = Min(next, next_due(sync->name, GetCurrentTransactionStartTimestamp()));
	}
	*looked_at = GetCurrentTransactionStartTimestamp();
	commit();
	if (sent > 0)
	{
		LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
		my_slot->notified_at = GetCurrentTimestamp();
		my_slot->notifications += sent;
		LWLockRelease(wake_shared->lock);
	}
	return next;
}

static void
run(const char *doing, const char *query)
{
	begin(doing);
	if (SPI_execute(query, false, 0) < 0)
		elog(ERROR, "%s failed", doing);
	commit();
}

/* A leaf that is to be retired. */
typedef struct OldLeaf
{
	Oid			leaf;
	Oid			parent;
} OldLeaf;

/* The leaves to retire, in a memory context; NIL if another maintain() is running. */
static List *
list_old_leaves(MemoryContext context)
{
	List	   *leaves = NIL;

	begin("maintaining");
	if (SPI_execute("SELECT l.leaf, l.parent"
					" FROM postalytics.leaves_to_retire() AS l"
					" WHERE (SELECT postalytics.begin_maintenance())", false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list partitions");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext caller = MemoryContextSwitchTo(context);
		OldLeaf    *old = palloc(sizeof(OldLeaf));
		bool		isnull;

		old->leaf = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		old->parent = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull));
		leaves = lappend(leaves, old);
		MemoryContextSwitchTo(caller);
	}
	commit();
	return leaves;
}

/*
 * Retire a leaf in transactions of its own, so that its lock is not held while
 * other leaves are retired.  False if retire_leaf() reported a failure.
 */
static bool
retire(const OldLeaf *old)
{
	bool		retired;
	char		query[256];

	snprintf(query, sizeof(query),
			 "SELECT postalytics.carry_payloads(i.inhrelid, true)"
			 " FROM pg_catalog.pg_inherits AS i"
			 " WHERE i.inhrelid = %u"
			 "   AND i.inhparent = 'postalytics.events'::pg_catalog.regclass", old->leaf);
	run("maintaining", query);
	snprintf(query, sizeof(query),
			 "SELECT FROM pg_catalog.pg_inherits AS i,"
			 "      postalytics.retire_leaf(i.inhrelid, i.inhparent, true) AS r"
			 " WHERE i.inhrelid = %u"
			 "   AND (SELECT postalytics.begin_maintenance())"
			 "   AND r.action = 'failed'", old->leaf);
	begin("maintaining");
	if (SPI_execute(query, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not retire a partition");
	retired = SPI_processed == 0;
	commit();
	return retired;
}

/* What maintain() does, with a transaction for each leaf. */
static void
maintain_by_leaf(MemoryContext context)
{
	List	   *leaves;
	Oid			busy = InvalidOid;
	ListCell   *cell;

	run("maintaining", "SELECT count(*) FROM postalytics.make_ahead()");
	leaves = list_old_leaves(context);
	foreach(cell, leaves)
	{
		const OldLeaf *old = lfirst(cell);

		if (old->parent != busy && !retire(old))
			busy = old->parent;
	}
}

/* Run maintenance.  An error in it must not stop notifications. */
static void
maintain(void)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "postalytics maintenance",
												  ALLOCSET_SMALL_SIZES);

	PG_TRY();
	{
		maintain_by_leaf(context);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(TopMemoryContext);
		error = CopyErrorData();
		EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
		note_error(error->message);
		run("noting an error",
			psprintf("SELECT postalytics.log_maintenance('failed', 'maintain', %s)",
					 quote_literal_cstr(error->message)));
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	my_slot->maintained_at = GetCurrentTimestamp();
	LWLockRelease(wake_shared->lock);
}

/* Sleep so many milliseconds, or until the latch is set. */
static void
doze(long milliseconds)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 milliseconds, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/* Until the instant, whatever comes; settings are heeded on the way. */
static void
doze_until(TimestampTz instant)
{
	long		left;

	while ((left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), instant)) > 0)
		doze(Min(left, LOOK_AGAIN));
}

static bool
maintenance_is_due(void)
{
	return setting_maintenance_interval > 0 &&
		TimestampDifferenceExceeds(Max(my_slot->maintained_at, my_slot->started_at),
								   GetCurrentTimestamp(),
								   my_slot->maintained_at == 0 ? LOOK_AGAIN :
								   setting_maintenance_interval * 1000);
}

static void
work(void)
{
	static Taken taken;
	TimestampTz looked_at = DT_NOBEGIN; /* so that all that is due is announced */

	for (;;)
	{
		TimestampTz next;

		if (!extension_exists())
		{
			free_slot();
			proc_exit(0);
		}
		take(&taken);
		next = notify_syncs(&taken, &looked_at);
		if (maintenance_is_due())
			maintain();
		doze_until(TimestampTzPlusMilliseconds(looked_at, setting_notify_interval));
		if (go_idle())
		{
			long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next);

			doze(Min(left, LOOK_AGAIN));
		}
	}
}

/* The background worker of a database, which is the argument. */
void
postalytics_worker_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	if (!extension_exists())
	{
		free_slot();
		proc_exit(0);
	}
	if (!claim_slot())
		ereport(FATAL,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("there are more than %d databases with extension \"%s\"", MAX_WORKERS, EXTENSION_NAME),
				 errhint("Name those that are to have a worker in " EXTENSION_NAME ".worker_databases.")));

	/* Names are the system's, and the queue is read by its index. */
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("enable_bitmapscan", "off", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("plan_cache_mode", "force_generic_plan", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("jit", "off", PGC_USERSET, PGC_S_SESSION);
	/* What maintain() waits for it must see. */
	SetConfigOption("default_transaction_isolation", "read committed", PGC_USERSET, PGC_S_SESSION);

	PG_TRY();
	{
		work();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(TopMemoryContext);
		note_error(CopyErrorData()->message);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* ---- the launcher ---- */

/* A worker as the launcher knows it. */
typedef struct Worker
{
	Oid			database;
	BackgroundWorkerHandle *handle; /* NULL: not started */
	TimestampTz started_at;
	TimestampTz not_before;		/* after a failure */
	int			pause;			/* the next, milliseconds */
	bool		wanted;			/* look whether the extension is there */
	bool		starved;		/* registration failed last time, which was logged */
} Worker;

static List *workers;			/* in TopMemoryContext */

static Worker *
find_worker(Oid database)
{
	MemoryContext caller;
	ListCell   *cell;
	Worker	   *worker;

	foreach(cell, workers)
	{
		worker = lfirst(cell);
		if (worker->database == database)
			return worker;
	}
	caller = MemoryContextSwitchTo(TopMemoryContext);
	worker = palloc0(sizeof(Worker));
	worker->database = database;
	worker->pause = FIRST_PAUSE;
	workers = lappend(workers, worker);
	MemoryContextSwitchTo(caller);
	return worker;
}

/* May a database have a worker, by its name? */
static bool
is_named(const char *database)
{
	char	   *names = pstrdup(setting_worker_databases);
	List	   *list;
	ListCell   *cell;

	if (strcmp(names, "*") == 0)
		return true;
	if (!SplitIdentifierString(names, ',', &list))
		return false;
	foreach(cell, list)
	{
		if (strcmp(lfirst(cell), database) == 0)
			return true;
	}
	return false;
}

/* The databases that may have a worker. */
static List *
list_databases(void)
{
	List	   *databases = NIL;
	Relation	relation;
	SysScanDesc scan;
	HeapTuple	tuple;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = systable_beginscan(relation, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		if (database->datallowconn && !database->datistemplate && is_named(NameStr(database->datname)))
		{
			MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);

			databases = lappend_oid(databases, database->oid);
			MemoryContextSwitchTo(caller);
		}
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();
	return databases;
}

static bool
has_slot(const Worker *worker)
{
	bool		has;

	LWLockAcquire(wake_shared->lock, LW_SHARED);
	has = wake_find_slot(worker->database) != NULL;
	LWLockRelease(wake_shared->lock);
	return has;
}

/* Is there need of a worker, and does nobody want the database for himself? */
static bool
may_start(const Worker *worker, int probes)
{
	WorkerSlot *slot;
	bool		may;

	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	slot = wake_find_slot(worker->database);
	if (slot != NULL && !is_alive(slot->pauser))
		slot->pauser = 0;
	may = slot != NULL ? slot->pauser == 0 : worker->wanted && probes < MAX_PROBES;
	LWLockRelease(wake_shared->lock);
	return may;
}

static void
start(Worker *worker)
{
	BackgroundWorker registration = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_library_name = EXTENSION_NAME,
		.bgw_function_name = "postalytics_worker_main",
		.bgw_name = WORKER_NAME,
		.bgw_type = WORKER_NAME,
		.bgw_main_arg = ObjectIdGetDatum(worker->database),
		.bgw_notify_pid = MyProcPid
	};
	MemoryContext caller = MemoryContextSwitchTo(TopMemoryContext);

	worker->wanted = false;
	worker->started_at = GetCurrentTimestamp();
	if (!RegisterDynamicBackgroundWorker(&registration, &worker->handle))
	{
		worker->handle = NULL;
		worker->wanted = true;
		worker->not_before = TimestampTzPlusMilliseconds(worker->started_at, LONGEST_PAUSE);
		if (!worker->starved)
			ereport(LOG,
					(errmsg("could not start background worker of extension \"%s\" for database with OID %u",
							EXTENSION_NAME, worker->database),
					 errhint("You might need to increase max_worker_processes.")));
	}
	worker->starved = worker->handle == NULL;
	MemoryContextSwitchTo(caller);
}

/*
 * Handle the exit of a worker.  If its database still has a slot, the worker
 * failed, and is not restarted before a pause, even if a session requests it.
 */
static void
see_to_end(Worker *worker)
{
	TimestampTz now = GetCurrentTimestamp();

	pfree(worker->handle);
	worker->handle = NULL;
	if (!has_slot(worker))
	{
		worker->pause = FIRST_PAUSE;
		worker->not_before = now;
		return;
	}
	if (TimestampDifferenceExceeds(worker->started_at, now, GOOD_LIFE))
		worker->pause = FIRST_PAUSE;
	worker->not_before = TimestampTzPlusMilliseconds(now, worker->pause);
	worker->pause = Min(2 * worker->pause, LONGEST_PAUSE);
}

/* Note which databases sessions want looked at; true for all there are. */
static bool
take_requests(void)
{
	Oid			requests[MAX_REQUESTS];
	int			count;

	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	count = wake_shared->nrequests;
	memcpy(requests, wake_shared->requests, sizeof(requests));
	wake_shared->nrequests = 0;
	LWLockRelease(wake_shared->lock);
	for (int i = 0; i < count; i++)
		find_worker(requests[i])->wanted = true;
	return count < 0;
}

/*
 * Free the slot of a database that was dropped or must not have a worker; false
 * while a worker or a command that pauses it is alive.
 */
static bool
forget(Worker *worker)
{
	WorkerSlot *slot;
	bool		is_free;

	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	slot = wake_find_slot(worker->database);
	is_free = slot == NULL || (!is_alive(slot->pid) && !is_alive(slot->pauser));
	if (slot != NULL && is_free)
		slot->database = InvalidOid;
	LWLockRelease(wake_shared->lock);
	return is_free;
}

/* Start and stop what is to be; returns for how long to sleep, in milliseconds. */
static long
tend(void)
{
	bool		all = take_requests();	/* before looking which there are */
	List	   *databases = list_databases();
	TimestampTz now = GetCurrentTimestamp();
	long		sleep = LONGEST_PAUSE;
	int			probes = 0;
	ListCell   *cell;

	if (all)
	{
		foreach(cell, databases)
			find_worker(lfirst_oid(cell))->wanted = true;
	}
	foreach(cell, workers)
	{
		Worker	   *worker = lfirst(cell);
		pid_t		pid;

		if (worker->handle != NULL && GetBackgroundWorkerPid(worker->handle, &pid) == BGWH_STOPPED)
			see_to_end(worker);
		if (worker->handle != NULL && !has_slot(worker))
			probes++;
		if (!list_member_oid(databases, worker->database))
		{
			if (worker->handle != NULL)
				TerminateBackgroundWorker(worker->handle);
			else if (forget(worker))
			{
				pfree(worker);
				workers = foreach_delete_current(workers, cell);
				continue;
			}
			worker->wanted = false;
		}
		else if (worker->handle == NULL && may_start(worker, probes))
		{
			if (now >= worker->not_before)
			{
				start(worker);
				probes += !has_slot(worker);
			}
			else
				sleep = Min(sleep, TimestampDifferenceMilliseconds(now, worker->not_before) + 1);
		}
	}
	list_free(databases);
	return sleep;
}

/* The next launcher does not know of this one's workers, and starts its own. */
static void
leave_launcher(int code, Datum arg)
{
	ListCell   *cell;

	foreach(cell, workers)
	{
		Worker	   *worker = lfirst(cell);

		if (worker->handle != NULL)
			TerminateBackgroundWorker(worker->handle);
	}
	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	wake_shared->launcher = NULL;
	LWLockRelease(wake_shared->lock);
}

/* The launcher: connected to no database, it sees to the workers. */
void
postalytics_launcher_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	wake_shared->launcher = MyLatch;
	wake_launcher(InvalidOid);
	LWLockRelease(wake_shared->lock);
	before_shmem_exit(leave_launcher, (Datum) 0);
	for (;;)
		doze(tend());
}

/* ---- commands that must have a database for themselves ---- */

static ProcessUtility_hook_type next_utility;

/* The database that a command must have for itself, or NULL. */
static char *
database_needed_alone(Node *command)
{
	ListCell   *cell;

	switch (nodeTag(command))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) command)->dbname;
		case T_RenameStmt:
			return ((RenameStmt *) command)->renameType == OBJECT_DATABASE ?
				((RenameStmt *) command)->subname : NULL;
		case T_CreatedbStmt:
			foreach(cell, ((CreatedbStmt *) command)->options)
			{
				DefElem    *option = lfirst(cell);

				if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
					return defGetString(option);
			}
			return NULL;
		case T_AlterDatabaseStmt:
			foreach(cell, ((AlterDatabaseStmt *) command)->options)
			{
				if (strcmp(((DefElem *) lfirst(cell))->defname, "tablespace") == 0)
					return ((AlterDatabaseStmt *) command)->dbname;
			}
			return NULL;
		default:
			return NULL;
	}
}

/* Send the database's worker away until it is called back. */
static void
send_away(Oid database)
{
	for (;;)
	{
		WorkerSlot *slot;
		int			pid;

		LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
		slot = wake_find_slot(database);
		if (slot != NULL)
			slot->pauser = MyProcPid;
		pid = slot == NULL ? 0 : slot->pid;
		LWLockRelease(wake_shared->lock);
		if (!is_alive(pid))
			break;
		kill(pid, SIGTERM);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 POLL, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
call_back(Oid database)
{
	WorkerSlot *slot;

	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	slot = wake_find_slot(database);
	if (slot != NULL && slot->pauser == MyProcPid)
		slot->pauser = 0;
	wake_launcher(database);
	LWLockRelease(wake_shared->lock);
}

static void
run_utility(PlannedStmt *statement, const char *query, bool read_only,
			ProcessUtilityContext context, ParamListInfo parameters,
			QueryEnvironment *environment, DestReceiver *receiver,
			QueryCompletion *completion)
{
	char	   *name = database_needed_alone(statement->utilityStmt);
	Oid			database = name == NULL ? InvalidOid : get_database_oid(name, true);

	/* Who may not do it is told so by the command. */
	if (!OidIsValid(database) || !compat_owns_database(database, GetUserId()))
	{
		next_utility(statement, query, read_only, context, parameters, environment, receiver, completion);
		return;
	}
	PG_TRY();
	{
		send_away(database);
		next_utility(statement, query, read_only, context, parameters, environment, receiver, completion);
	}
	PG_FINALLY();
	{
		call_back(database);
	}
	PG_END_TRY();
	if (IsA(statement->utilityStmt, CreatedbStmt))
		wake_want_worker(get_database_oid(((CreatedbStmt *) statement->utilityStmt)->dbname, true));
}

/* When the library is preloaded: have the launcher started. */
void
worker_init(void)
{
	BackgroundWorker launcher = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = 5,
		.bgw_library_name = EXTENSION_NAME,
		.bgw_function_name = "postalytics_launcher_main",
		.bgw_name = LAUNCHER_NAME,
		.bgw_type = LAUNCHER_NAME
	};

	if (IsBinaryUpgrade)
		return;
	wake_init();
	RegisterBackgroundWorker(&launcher);
	next_utility = ProcessUtility_hook ? ProcessUtility_hook : standard_ProcessUtility;
	ProcessUtility_hook = run_utility;
}

/* ---- SQL ---- */

/* want_worker(): once the transaction is committed, have a worker started. */
Datum
postalytics_want_worker(PG_FUNCTION_ARGS)
{
	wake_want_worker(MyDatabaseId);
	PG_RETURN_VOID();
}

static void
set_instant(Datum *value, bool *isnull, TimestampTz instant)
{
	*value = TimestampTzGetDatum(instant);
	*isnull = instant == 0;
}

/*
 * worker_status() returns (running, pid, started_at, last_notify_at,
 * notifications, last_maintenance_at, last_error, last_error_at): of this
 * database's worker
 */
Datum
postalytics_worker_status(PG_FUNCTION_ARGS)
{
	TupleDesc	tupdesc;
	Datum		values[8] = {0};
	bool		nulls[8] = {false, true, true, true, true, true, true, true};
	WorkerSlot *slot = NULL;

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = BoolGetDatum(false);
	if (wake_shared != NULL)
	{
		LWLockAcquire(wake_shared->lock, LW_SHARED);
		slot = wake_find_slot(MyDatabaseId);
	}
	if (slot != NULL)
	{
		values[0] = BoolGetDatum(slot->pid != 0);
		values[1] = Int32GetDatum(slot->pid);
		nulls[1] = slot->pid == 0;
		set_instant(&values[2], &nulls[2], slot->started_at);
		set_instant(&values[3], &nulls[3], slot->notified_at);
		values[4] = Int64GetDatum(slot->notifications);
		nulls[4] = false;
		set_instant(&values[5], &nulls[5], slot->maintained_at);
		values[6] = CStringGetTextDatum(slot->error);
		nulls[6] = slot->error[0] == '\0';
		set_instant(&values[7], &nulls[7], slot->failed_at);
	}
	if (wake_shared != NULL)
		LWLockRelease(wake_shared->lock);
	return HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls));
}
