/*
 * launcher.c
 *		Starts a background worker in each database that has the extension, and
 *		restarts it after a failure.
 *
 * The launcher is connected to no database.  A worker finds out whether its
 * database has the extension, and exits if it does not.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/extension.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "rights/settings.h"
#include "storage/ipc.h"
#include "sync/wake.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
#include "worker/launcher.h"
#include "worker/process.h"

PGDLLEXPORT void postalytics_launcher_main(Datum arg);

#define LAUNCHER_NAME	"postalytics_status launcher"
#define WORKER_NAME		"postalytics_status worker"

/* Pause before a failed worker is restarted, in milliseconds. */
#define FIRST_PAUSE		1000
#define LONGEST_PAUSE	60000

/*
 * The pause before a restart is reset to FIRST_PAUSE if the worker ran for longer
 * than this, in milliseconds.
 */
#define MIN_UPTIME		5000

/* Maximum number of databases that are checked for the extension at a time. */
#define MAX_PROBES		2

/* What the launcher knows of a worker. */
typedef struct Worker
{
	Oid			database;
	BackgroundWorkerHandle *handle; /* NULL if the worker is not started */
	TimestampTz started_at;
	TimestampTz not_before;		/* earliest time of the next start */
	int			pause;			/* after the next failure, in milliseconds */
	bool		wanted;			/* start the worker to check whether the
								 * database has the extension */
	bool		registration_failed;	/* the last registration failed, and
										 * this was logged */
} Worker;

static List *workers;			/* in TopMemoryContext */

/* Return the entry of a database in workers, and add it if necessary. */
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

/* Return a list, in TopMemoryContext, of the databases that may have a worker. */
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

		if (database->datallowconn && !database->datistemplate && worker_is_allowed(NameStr(database->datname)))
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

/*
 * True if a worker may be started.  If its database has a slot, no command may have
 * paused it.  Otherwise a check of the database must be wanted, and the number of
 * running checks, probes, must be less than MAX_PROBES.
 */
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

/*
 * Start a worker.  If it cannot be registered, log the failure once, and set
 * not_before to try again after a pause.
 */
static void
start_worker(Worker *worker)
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
		if (!worker->registration_failed)
			ereport(LOG,
					(errmsg("could not start background worker of extension \"%s\" for database with OID %u",
							EXTENSION_NAME, worker->database),
					 errhint("You might need to increase max_worker_processes.")));
	}
	worker->registration_failed = worker->handle == NULL;
	MemoryContextSwitchTo(caller);
}

/*
 * Handle the exit of a worker.  If its database still has a slot, the worker
 * failed, and is restarted only after a pause, even if a session requests it.
 */
static void
end_worker(Worker *worker)
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
	if (TimestampDifferenceExceeds(worker->started_at, now, MIN_UPTIME))
		worker->pause = FIRST_PAUSE;
	worker->not_before = TimestampTzPlusMilliseconds(now, worker->pause);
	worker->pause = Min(2 * worker->pause, LONGEST_PAUSE);
}

/*
 * Process the requests of sessions to check databases.  True if all databases
 * must be checked.
 */
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
 * Free the slot of a database that was dropped or must not have a worker.  Returns
 * false while the worker, or a backend that pauses it, is alive.
 */
static bool
free_worker_entry(Worker *worker)
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

/*
 * Start and stop workers as needed.  Returns how long to sleep, in
 * milliseconds.
 */
static long
manage_workers(void)
{
	bool		all = take_requests();	/* before listing the databases */
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
			end_worker(worker);
		if (worker->handle != NULL && !has_slot(worker))
			probes++;
		if (!list_member_oid(databases, worker->database))
		{
			if (worker->handle != NULL)
				TerminateBackgroundWorker(worker->handle);
			else if (free_worker_entry(worker))
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
				start_worker(worker);
				probes += !has_slot(worker);
			}
			else
				sleep = Min(sleep, TimestampDifferenceMilliseconds(now, worker->not_before) + 1);
		}
	}
	list_free(databases);
	return sleep;
}

/*
 * Stop all workers, because the next launcher will not know these workers, and
 * will start others.
 */
static void
launcher_exit(int code, Datum arg)
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

/* Main function of the launcher. */
void
postalytics_launcher_main(Datum arg)
{
	process_begin();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	wake_shared->launcher = MyLatch;
	wake_launcher(InvalidOid);
	LWLockRelease(wake_shared->lock);
	before_shmem_exit(launcher_exit, (Datum) 0);
	for (;;)
		sleep_for(manage_workers());
}

/* Register the launcher, when the library is preloaded. */
void
launcher_init(void)
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

	RegisterBackgroundWorker(&launcher);
}
