/*
 * wake.c
 *		Shared memory of sessions and background workers: which syncs have new
 *		deliveries, and the state of each worker.
 *
 * The shared memory exists only if the library is preloaded.  If a worker runs, a
 * transaction that writes deliveries does not NOTIFY.  It remembers the syncs of
 * the deliveries, and notifies the worker after commit, when the rows are visible.
 * The worker then notifies the channels of these syncs, the woken syncs.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/extension.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "sync/notification.h"
#include "sync/wake.h"
#include "utils/memutils.h"

#define TRANCHE		EXTENSION_NAME

WakeShared *wake_shared;

/* A sync that becomes woken when this transaction commits. */
typedef struct Pending
{
	char		sync[NAMEDATALEN];
	char		channel[NAMEDATALEN];
	int64		count;
	int			level;			/* nesting level of the subtransaction */
} Pending;

static void at_transaction_end(XactEvent event, void *arg);
static void at_subtransaction_end(SubXactEvent event, SubTransactionId mine,
								  SubTransactionId parent, void *arg);

static List *pending;			/* in TopTransactionContext */
static Oid	wanted;				/* a database that needs a worker */
static bool asked;				/* this session has asked for a worker before */
static bool callbacks_registered;

/* ---- shared memory ---- */

static shmem_request_hook_type next_shmem_request;
static shmem_startup_hook_type next_shmem_startup;

static void
request_shared_memory(void)
{
	if (next_shmem_request)
		next_shmem_request();
	RequestAddinShmemSpace(MAXALIGN(sizeof(WakeShared)));
	RequestNamedLWLockTranche(TRANCHE, 1);
}

static void
attach_shared_memory(void)
{
	bool		found;

	if (next_shmem_startup)
		next_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	wake_shared = ShmemInitStruct(EXTENSION_NAME, sizeof(WakeShared), &found);
	if (!found)
	{
		memset(wake_shared, 0, sizeof(WakeShared));
		wake_shared->lock = &GetNamedLWLockTranche(TRANCHE)->lock;
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Install the hooks that request shared memory, when the library is preloaded. */
void
wake_init(void)
{
	next_shmem_request = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	next_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = attach_shared_memory;
}

/*
 * Return the slot of a database, or NULL.  InvalidOid finds a free slot.  The
 * caller holds the lock.
 */
WorkerSlot *
wake_find_slot(Oid database)
{
	for (int i = 0; i < MAX_WORKERS; i++)
		if (wake_shared->slots[i].database == database)
			return &wake_shared->slots[i];
	return NULL;
}

/*
 * Ask the launcher to check a database, or all databases if the argument is
 * InvalidOid.  The caller holds the lock.
 */
void
wake_launcher(Oid database)
{
	int			n = wake_shared->nrequests;

	if (n < 0 || n == MAX_REQUESTS || !OidIsValid(database))
		wake_shared->nrequests = -1;	/* all */
	else
		wake_shared->requests[wake_shared->nrequests++] = database;
	if (wake_shared->launcher != NULL)
		SetLatch(wake_shared->launcher);
}

/* ---- transactions ---- */

static void
register_callbacks(void)
{
	if (callbacks_registered)
		return;
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
	callbacks_registered = true;
}

/* Ask the launcher, after commit, to start a worker for a database. */
void
wake_want_worker(Oid database)
{
	if (wake_shared == NULL)
		return;
	register_callbacks();
	wanted = database;
}

/*
 * True if a worker runs in this database.  If none runs, also ask the launcher,
 * after commit, to start one, but only once in a session.
 */
bool
wake_has_worker(void)
{
	bool		has = false;

	if (wake_shared != NULL)
	{
		WorkerSlot *slot;

		LWLockAcquire(wake_shared->lock, LW_SHARED);
		slot = wake_find_slot(MyDatabaseId);
		has = slot != NULL && slot->pid != 0;
		LWLockRelease(wake_shared->lock);
		if (!has && !asked)
			wake_want_worker(MyDatabaseId);
	}
	return has;
}

/* Notify the channels of the syncs directly, because the worker has exited. */
static void
notify_instead(void)
{
	ListCell   *cell;

	foreach(cell, pending)
	{
		Pending    *each = lfirst(cell);

		if (each->count > 0)
			notify_sync(each->sync, each->channel, each->count);
	}
	pending = NIL;
}

/*
 * Add the new deliveries of a sync to the woken syncs of a slot.  Must not fail,
 * because the transaction has committed.
 */
static void
add_woken(WorkerSlot *slot, const Pending *each)
{
	int			i = 0;

	while (i < slot->nwoken && strcmp(slot->woken[i].sync, each->sync) != 0)
		i++;
	if (i == MAX_WOKEN)
	{
		slot->all_woken = true;
		return;
	}
	if (i == slot->nwoken)
	{
		strlcpy(slot->woken[i].sync, each->sync, NAMEDATALEN);
		slot->woken[i].count = 0;
		slot->nwoken++;
	}
	slot->woken[i].count += each->count;
}

/* Send the transaction's requests to the worker and the launcher. */
static void
send_pending(void)
{
	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	if (pending != NIL)
	{
		WorkerSlot *slot = wake_find_slot(MyDatabaseId);
		ListCell   *cell;

		if (slot != NULL)
		{
			foreach(cell, pending)
				add_woken(slot, lfirst(cell));
			if (slot->idle && slot->latch != NULL)
			{
				slot->idle = false;
				SetLatch(slot->latch);
			}
		}
	}
	if (OidIsValid(wanted))
		wake_launcher(wanted);
	LWLockRelease(wake_shared->lock);
}

static void
forget_pending(void)
{
	pending = NIL;
	wanted = InvalidOid;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (pending != NIL && !wake_has_worker())
				notify_instead();
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (pending != NIL)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has written deliveries of a sync")));
			break;
		case XACT_EVENT_COMMIT:
			if (pending != NIL || OidIsValid(wanted))
				send_pending();
			asked |= OidIsValid(wanted);
			forget_pending();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			forget_pending();
			break;
		default:
			break;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	ListCell   *cell;

	if (event != SUBXACT_EVENT_ABORT_SUB && event != SUBXACT_EVENT_COMMIT_SUB)
		return;
	foreach(cell, pending)
	{
		Pending    *each = lfirst(cell);

		if (each->level < level)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			each->level = level - 1;
		else
			pending = foreach_delete_current(pending, cell);
	}
}

/*
 * Notify the database's worker, after commit, that a sync has count new
 * deliveries.  A count of zero asks the worker to check which deliveries are due,
 * and when the next delivery is due.  If the worker has exited before the commit
 * and count is positive, the channel of the sync is notified instead.
 */
void
wake_worker(const char *sync, const char *channel, int64 count)
{
	MemoryContext caller;
	Pending    *new;
	int			level = GetCurrentTransactionNestLevel();
	ListCell   *cell;

	register_callbacks();
	foreach(cell, pending)
	{
		Pending    *each = lfirst(cell);

		if (each->level == level && strcmp(each->sync, sync) == 0)
		{
			each->count += count;
			return;
		}
	}
	caller = MemoryContextSwitchTo(TopTransactionContext);
	new = palloc(sizeof(Pending));
	strlcpy(new->sync, sync, NAMEDATALEN);
	strlcpy(new->channel, channel, NAMEDATALEN);
	new->count = count;
	new->level = level;
	pending = lappend(pending, new);
	MemoryContextSwitchTo(caller);
}
