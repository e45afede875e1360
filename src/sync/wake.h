/*
 * wake.h
 *		Shared memory of sessions and background workers.
 *
 * A woken sync is a sync of which sessions have notified the worker since the
 * worker last took the woken syncs from its slot.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_WAKE_H
#define POSTALYTICS_WAKE_H

#include "datatype/timestamp.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

#define MAX_WORKERS		64		/* databases with the extension */
#define MAX_WOKEN		64		/* woken syncs of a database */
#define MAX_REQUESTS	16
#define MAX_ERROR		256

/* A woken sync. */
typedef struct Woken
{
	char		sync[NAMEDATALEN];
	int64		count;			/* number of new deliveries */
} Woken;

/*
 * A database with the extension, once a worker has found the extension there.
 */
typedef struct WorkerSlot
{
	Oid			database;		/* InvalidOid if the slot is free */
	int			pid;			/* of the worker; 0 while none runs */
	int			pauser;			/* pid of a backend that needs the database
								 * for itself, or 0 */
	Latch	   *latch;
	bool		idle;			/* the worker waits for its latch */
	bool		all_woken;		/* more syncs are woken than fit into woken */
	int			nwoken;
	Woken		woken[MAX_WOKEN];
	TimestampTz started_at;
	TimestampTz notified_at;	/* 0 for never */
	int64		notifications;
	TimestampTz maintained_at;	/* 0 for never */
	TimestampTz failed_at;		/* 0 for never */
	char		error[MAX_ERROR];
} WorkerSlot;

typedef struct WakeShared
{
	LWLock	   *lock;			/* protects all of the following */
	Latch	   *launcher;
	int			nrequests;		/* number of databases to check; -1 for all */
	Oid			requests[MAX_REQUESTS];
	WorkerSlot	slots[MAX_WORKERS];
} WakeShared;

extern WakeShared *wake_shared;

extern void wake_init(void);
extern bool wake_has_worker(void);
extern void wake_worker(const char *sync, const char *channel, int64 count);
extern void wake_want_worker(Oid database);
extern WorkerSlot *wake_find_slot(Oid database);
extern void wake_launcher(Oid database);

#endif							/* POSTALYTICS_WAKE_H */
