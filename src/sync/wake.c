/*
 * wake.c
 *		What sessions and background workers tell each other, in shared memory:
 *		which syncs have something, whether a worker is there, and how it is.
 *		There is none of it unless the library is preloaded.
 *
 * A transaction that brings deliveries does not NOTIFY where a worker runs.  It
 * keeps in mind which syncs they are for, and notes that in shared memory once it
 * has committed and its rows can be seen.
 */
#include "postalytics_status.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "sync/wake.h"

#define TRANCHE		EXTENSION_NAME

WakeShared *wake_shared;

/* What this transaction will have to say. */
typedef struct Pending
{
	char		sync[NAMEDATALEN];
	char		channel[NAMEDATALEN];
	int64		count;
	int			level;			/* of the subtransaction */
} Pending;

static void at_transaction_end(XactEvent event, void *arg);
static void at_subtransaction_end(SubXactEvent event, SubTransactionId mine,
								  SubTransactionId parent, void *arg);

static List *pending;			/* in TopTransactionContext */
static Oid	wanted;				/* a database that is to have a worker */
static bool asked;				/* once is enough for a session */
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

/* When the library is preloaded: ask for the memory that all of it shares. */
void
wake_init(void)
{
	next_shmem_request = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	next_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = attach_shared_memory;
}

/* A database's slot, or NULL.  The caller holds the lock. */
WorkerSlot *
wake_find_slot(Oid database)
{
	for (int i = 0; i < MAX_WORKERS; i++)
		if (wake_shared->slots[i].database == database)
			return &wake_shared->slots[i];
	return NULL;
}

/* Ask the launcher to look at a database; InvalidOid for all.  Holds the lock. */
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

/* ---- what a transaction has to say ---- */

static void
register_callbacks(void)
{
	if (callbacks_registered)
		return;
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
	callbacks_registered = true;
}

/* Have the launcher, once the transaction is committed, see to a worker. */
void
wake_want_worker(Oid database)
{
	if (wake_shared == NULL)
		return;
	register_callbacks();
	wanted = database;
}

/* Does this database have a worker that runs? */
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

/* The worker went away since: what it was to say is said by the transaction. */
static void
notify_instead(void)
{
	ListCell   *cell;

	foreach(cell, pending)
	{
		Pending    *each = lfirst(cell);

		if (each->count > 0)
			sync_notify(each->sync, each->channel, each->count);
	}
	pending = NIL;
}

/* Add to what a sync is to be told of; no error can happen here. */
static void
note(WorkerSlot *slot, const Pending *each)
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

static void
tell(void)
{
	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	if (pending != NIL)
	{
		WorkerSlot *slot = wake_find_slot(MyDatabaseId);
		ListCell   *cell;

		if (slot != NULL)
		{
			foreach(cell, pending)
				note(slot, lfirst(cell));
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
forget(void)
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
						 errmsg("cannot PREPARE a transaction that has brought events for a sync")));
			break;
		case XACT_EVENT_COMMIT:
			if (pending != NIL || OidIsValid(wanted))
				tell();
			asked |= OidIsValid(wanted);
			forget();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			forget();
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
 * Leave it to the database's worker, once the transaction is committed, to
 * notify a sync of count deliveries, or with a count of zero to look when the
 * next is due.
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
