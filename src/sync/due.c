/*
 * due.c
 *		When deliveries are due, and who may still write some that are.
 *
 * Whatever sets due_at takes RowExclusiveLock on delivery_id_seq, which it
 * holds until its transaction ends, then reads the clock, and sets no time
 * before that.  So once the transactions that hold the lock at some time have
 * ended, no row that was due before that time can still become visible.  This
 * is what look.c relies on when it begins a scan at a remembered place.  The
 * lock conflicts with none that others need: nextval() takes it anyway.
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
 * Return the current time, before which this transaction sets no due_at from
 * now on.  Locks: see above.
 */
TimestampTz
due_clock(void)
{
	LockRelationOid(extension_relation("delivery_id_seq"), RowExclusiveLock);
	return GetCurrentTimestamp();
}

/*
 * Return when the delivery of an event is due: after wait, but not before
 * clock, which is from due_clock.  Days and months of wait are added in UTC.
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
 * Return the transactions other than this one that may have called due_clock
 * and have not ended, prepared ones included, and their number.
 */
VirtualTransactionId *
due_writers(int *count)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, extension_relation("delivery_id_seq"));
	return GetLockConflicts(&tag, ShareLock, count);
}

/* ---- SQL ---- */

/* due_clock() returns timestamptz: as above. */
Datum
postalytics_due_clock(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(due_clock());
}

/*
 * due_at(occurred_at timestamptz, wait interval, clock timestamptz) returns
 * timestamptz: as above.  Strict.
 */
Datum
postalytics_due_at(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(due_at(PG_GETARG_TIMESTAMPTZ(0), PG_GETARG_INTERVAL_P(1),
								 PG_GETARG_TIMESTAMPTZ(2)));
}
