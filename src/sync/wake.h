/*
 * wake.h
 *		The shared memory of wake.c and worker.c, and of nobody else.
 */
#ifndef POSTALYTICS_WAKE_H
#define POSTALYTICS_WAKE_H

#include "datatype/timestamp.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

#define MAX_WORKERS		64		/* databases with the extension */
#define MAX_WOKEN		64		/* syncs of a database noted by name */
#define MAX_REQUESTS	16
#define MAX_ERROR		256

/* A sync that has something. */
typedef struct Woken
{
	char		sync[NAMEDATALEN];
	int64		count;			/* of deliveries since it was last notified */
} Woken;

/* A database with the extension, from when its worker first found it there. */
typedef struct WorkerSlot
{
	Oid			database;		/* InvalidOid: nobody's */
	int			pid;			/* 0 while the worker does not run */
	int			pauser;			/* pid of who wants the database for itself, or 0 */
	Latch	   *latch;
	bool		idle;			/* the worker sleeps until its latch is set */
	bool		all_woken;		/* more syncs than there is room for */
	int			nwoken;
	Woken		woken[MAX_WOKEN];
	TimestampTz started_at;
	TimestampTz notified_at;	/* 0: never, as for the others */
	int64		notifications;
	TimestampTz maintained_at;
	TimestampTz failed_at;
	char		error[MAX_ERROR];
} WorkerSlot;

typedef struct WakeShared
{
	LWLock	   *lock;			/* of all that follows */
	Latch	   *launcher;
	int			nrequests;		/* databases to look at; -1 for all */
	Oid			requests[MAX_REQUESTS];
	WorkerSlot	slots[MAX_WORKERS];
} WakeShared;

extern WakeShared *wake_shared;

extern void wake_init(void);
extern WorkerSlot *wake_find_slot(Oid database);
extern void wake_launcher(Oid database);

#endif							/* POSTALYTICS_WAKE_H */
