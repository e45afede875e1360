/*
 * due.c
 *		Computes due_at, and finds the transactions that may still set it.
 *
 * Code that sets due_at first locks delivery_id_seq in RowExclusiveLock mode
 * until the end of its transaction.  Then it reads the clock, and sets no due_at
 * before that time.  So once all transactions that held the lock at time T have
 * ended, no more deliveries with a due_at before T can become visible.  look.c
 * relies on this when it starts a scan at a remembered position (place.c).
 * nextval() takes the same lock, so due_clock causes no additional blocking.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "sync/due.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_due_clock);
PG_FUNCTION_INFO_V1(postalytics_due_at);

/*
 * Return the current time, to be used as a lower bound of each due_at that this
 * transaction sets.
 *
 * Locks: RowExclusiveLock on delivery_id_seq, until the transaction ends.
 */
TimestampTz
due_clock(void)
{
	LockRelationOid(extension_relation("delivery_id_seq"), RowExclusiveLock);
	return GetCurrentTimestamp();
}

/*
 * Return when the delivery of an event is due: wait after occurred_at, but not
 * before clock, which is a result of due_clock.  Days and months of wait are added
 * in UTC.
 */
TimestampTz
due_at(TimestampTz occurred_at, const Interval *wait, TimestampTz clock)
{
	TimestampTz due = DatumGetTimestamp(DirectFunctionCall2(timestamp_pl_interval,
															TimestampGetDatum(occurred_at),
															IntervalPGetDatum(wait)));

	return Max(due, clock);
}

/*
 * Return the other transactions, prepared ones included, that hold the lock taken
 * by due_clock, and set count to their number.  The array is palloc'd.
 */
VirtualTransactionId *
due_writers(int *count)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, extension_relation("delivery_id_seq"));
	return GetLockConflicts(&tag, ShareLock, count);
}

/* ---- SQL ---- */

/* due_clock() returns timestamptz: calls the C function due_clock. */
Datum
postalytics_due_clock(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(due_clock());
}

/*
 * due_at(occurred_at timestamptz, wait interval, clock timestamptz) returns
 * timestamptz: calls the C function due_at.  Strict.
 */
Datum
postalytics_due_at(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(due_at(PG_GETARG_TIMESTAMPTZ(0), PG_GETARG_INTERVAL_P(1),
								 PG_GETARG_TIMESTAMPTZ(2)));
}
