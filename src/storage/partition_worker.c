/*
 * partition_worker.c
 *		A background worker that creates partitions of events and deliveries
 *		in separate transactions, and exits.
 *
 * A transaction that creates a partition keeps the parent locked until it
 * ends.  Other sessions that need to create a partition wait for that
 * transaction, however long it is idle.  The worker commits at once.  The
 * worker only needs a free slot of max_worker_processes; the library need not
 * be preloaded.  If no slot is free, the caller creates the partition itself.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/extension.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/partition_worker.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

PGDLLEXPORT void postalytics_leaf_main(Datum arg);

#define PARTITION_WORKER_NAME	"postalytics_status partition worker"

#define MAX_LEAVES		13		/* that one worker creates */

/*
 * Maximum lock_timeout of a worker, in milliseconds.  The caller itself may
 * hold a conflicting lock.
 */
#define MAX_LOCK_TIMEOUT	1000

/* Maximum number of retries to get a free slot, at intervals of 10 ms. */
#define MAX_TRIES		20

/* The task of a worker, passed in bgw_extra. */
typedef struct LeafTask
{
	int32		kind;
	int32		count;
	int32		lock_timeout;	/* milliseconds */
	TimestampTz times[MAX_LEAVES];
} LeafTask;

StaticAssertDecl(sizeof(LeafTask) <= BGW_EXTRALEN, "LeafTask must fit bgw_extra");

/*
 * Start a worker and wait until it has exited.  Returns false if no slot is
 * free.
 */
static bool
run_worker(const LeafTask *order)
{
	BackgroundWorker registration = {
		.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION,
		.bgw_start_time = BgWorkerStart_RecoveryFinished,
		.bgw_restart_time = BGW_NEVER_RESTART,
		.bgw_library_name = EXTENSION_NAME,
		.bgw_function_name = "postalytics_leaf_main",
		.bgw_name = PARTITION_WORKER_NAME,
		.bgw_type = PARTITION_WORKER_NAME,
		.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId),
		.bgw_notify_pid = MyProcPid
	};
	BackgroundWorkerHandle *handle;

	memcpy(registration.bgw_extra, order, sizeof(*order));
	for (int tries = 0; !RegisterDynamicBackgroundWorker(&registration, &handle); tries++)
	{
		if (tries == MAX_TRIES)
			return false;
		pg_usleep(10000L);
		CHECK_FOR_INTERRUPTS();
	}
	return WaitForBackgroundWorkerShutdown(handle) == BGWH_STOPPED;
}

/*
 * Create the leaves for these times in background workers.  Afterwards, the
 * caller must check which leaves exist, and create the missing ones itself.
 * Returns false if a worker could not be started.
 */
bool
create_leaves_in_worker(LeafKind kind, const TimestampTz *times, int count)
{
	if (!IsUnderPostmaster || IsParallelWorker())
		return false;
	for (int i = 0; i < count; i += MAX_LEAVES)
	{
		LeafTask	order = {
			.kind = kind,
			.count = Min(count - i, MAX_LEAVES),
			.lock_timeout = LockTimeout > 0 ? Min(LockTimeout, MAX_LOCK_TIMEOUT) : MAX_LOCK_TIMEOUT
		};

		memcpy(order.times, times + i, order.count * sizeof(TimestampTz));
		if (!run_worker(&order))
			return false;
	}
	return true;
}

/*
 * Create one leaf.  An error is discarded, because the session that started the
 * worker gets the same error when it creates the leaf itself.
 */
static void
create_leaf_in_transaction(LeafKind kind, TimestampTz time)
{
	MemoryContext caller = CurrentMemoryContext;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	PG_TRY();
	{
		Oid			schema = get_namespace_oid(EXTENSION_SCHEMA, true);

		/*
		 * The schema and events are not visible if the transaction that
		 * started the worker has created the extension.
		 */
		if (OidIsValid(schema) && OidIsValid(get_relname_relid("events", schema)))
		{
			SavedUser	before = switch_to_owner();

			(void) ensure_leaf(kind, time);
			restore_user(before);
		}
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		FlushErrorState();
		AbortCurrentTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
}

/* Main function of the worker.  Its argument is the OID of the database. */
void
postalytics_leaf_main(Datum arg)
{
	LeafTask	order;

	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("lock_timeout", psprintf("%d", order.lock_timeout), PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_USERSET, PGC_S_SESSION);
	pgstat_report_activity(STATE_RUNNING, "creating partitions");
	for (int i = 0; i < order.count; i++)
		create_leaf_in_transaction(order.kind, order.times[i]);
}
