/*
 * status.c
 *		SQL functions that show the state of the background worker, or ask the
 *		launcher to start a worker.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/compat.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "sync/wake.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_worker_status);
PG_FUNCTION_INFO_V1(postalytics_want_worker);

/*
 * want_worker() returns void
 *
 * Asks the launcher, after commit, to start a worker in this database.
 */
Datum
postalytics_want_worker(PG_FUNCTION_ARGS)
{
	wake_want_worker(MyDatabaseId);
	PG_RETURN_VOID();
}

/* Set a column to a time, or to NULL if the time is 0, which means never. */
static void
set_time(Datum *value, bool *isnull, TimestampTz time)
{
	*value = TimestampTzGetDatum(time);
	*isnull = time == 0;
}

/*
 * worker_status() returns (running boolean, pid integer,
 *		started_at timestamptz, last_notify_at timestamptz,
 *		notifications bigint, last_maintenance_at timestamptz,
 *		last_error text, last_error_at timestamptz)
 *
 * Returns the state of this database's worker.  Each of the columns after running
 * is NULL if there was no worker, or if what the column describes has not happened.
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
		set_time(&values[2], &nulls[2], slot->started_at);
		set_time(&values[3], &nulls[3], slot->notified_at);
		values[4] = Int64GetDatum(slot->notifications);
		nulls[4] = false;
		set_time(&values[5], &nulls[5], slot->maintained_at);
		values[6] = CStringGetTextDatum(slot->error);
		nulls[6] = slot->error[0] == '\0';
		set_time(&values[7], &nulls[7], slot->failed_at);
	}
	if (wake_shared != NULL)
		LWLockRelease(wake_shared->lock);
	return HeapTupleGetDatum(heap_form_tuple(tupdesc, values, nulls));
}
