/*
 * ensure_partition.c
 *		Creates missing partitions: months of events, the day on which deliveries
 *		are finished, and the ranges that maintain() asks for.
 *
 * For ingest, ack and fetch, a background worker creates the partitions if it
 * can be started, because the caller would keep the parent locked until its
 * transaction ends.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "fmgr.h"
#include "storage/ensure_partition.h"
#include "storage/partition_worker.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_ensure_partitions);
PG_FUNCTION_INFO_V1(postalytics_ensure_days);

/*
 * Let a background worker create the missing months for these times, so that no
 * other session has to wait for this transaction.  The caller must call
 * ensure_leaf for each month, because the worker may not have created all of
 * them.
 */
void
create_months_in_worker(const TimestampTz *times, int count)
{
	TimestampTz *missing = palloc(count * sizeof(TimestampTz));
	int			nmissing = 0;

	for (int i = 0; i < count; i++)
		if (!has_leaf(LEAF_MONTH, times[i]) && !leaf_name_is_taken(LEAF_MONTH, times[i]))
			missing[nmissing++] = times[i];
	if (nmissing > 0 && create_leaves_in_worker(LEAF_MONTH, missing, nmissing))
		(void) has_new_leaf(LEAF_MONTH, missing[0]);
	pfree(missing);
}

/*
 * Maximum time to wait for a transaction that has locked deliveries, in
 * milliseconds.
 */
#define DAY_LOCK_WAIT	100

/* Time after a failed wait during which ensure_day does not wait again. */
#define DAY_PAUSE		(10 * USECS_PER_SEC)

/*
 * Ensure that there is a partition for deliveries finished at a time.  Returns
 * false if another transaction holds a conflicting lock on deliveries.  If the
 * partition is missing, the next day's partition is created, too, so that few
 * sessions have to create one at midnight.  Error 42P07 if another table has
 * the name of either partition.
 */
bool
ensure_day(TimestampTz time)
{
	static TimestampTz pause_until = DT_NOBEGIN;
	const TimestampTz days[] = {time, time + USECS_PER_DAY};

	if (has_leaf(LEAF_DAY, time))
		return true;
	switch (lock_parent(LEAF_DAY, time, time < pause_until ? 0 : DAY_LOCK_WAIT))
	{
		case PARENT_HAS_LEAF:
			return true;
		case PARENT_BUSY:
			pause_until = time + DAY_PAUSE;
			return false;
		case PARENT_LOCKED:
			unlock_parent(LEAF_DAY);	/* the worker needs the lock */
	}
	if (create_leaves_in_worker(LEAF_DAY, days, lengthof(days)) && has_new_leaf(LEAF_DAY, time))
		return true;
	if (lock_parent(LEAF_DAY, time, 0) == PARENT_BUSY)
		return has_new_leaf(LEAF_DAY, time);
	(void) create_leaves(LEAF_DAY, days[0], days[1] + 1);
	return true;
}

/*
 * ensure_partitions("from" timestamptz, until timestamptz) returns integer
 *
 * Creates the missing months of events for times at or after "from" and before
 * until, and returns their number.  Strict.  Locks: SHARE UPDATE EXCLUSIVE on
 * events if a month is missing.  Errors: 22023 if until is not after "from",
 * 22008 for a time that no month can hold, 42P07 if another table has a month's
 * name, 53400 if there are as many months as setting max_months allows, 55P03
 * if the lock is not available in time.
 */
Datum
postalytics_ensure_partitions(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(create_leaves(LEAF_MONTH, PG_GETARG_TIMESTAMPTZ(0), PG_GETARG_TIMESTAMPTZ(1)));
}

/*
 * ensure_days("from" timestamptz, until timestamptz) returns integer
 *
 * Creates the missing days of deliveries for times at or after "from" and
 * before until, and returns their number.  Strict.  Locks: SHARE UPDATE
 * EXCLUSIVE on deliveries if a day is missing.  Errors: those of
 * ensure_partitions except 53400.
 */
Datum
postalytics_ensure_days(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(create_leaves(LEAF_DAY, PG_GETARG_TIMESTAMPTZ(0), PG_GETARG_TIMESTAMPTZ(1)));
}
