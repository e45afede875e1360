/*
 * fetch.c
 *		fetch leases due deliveries to a worker; next_due returns when the
 *		worker should fetch again.
 *
 * look.c finds the deliveries, verdict.c decides what to do with them, and this
 * file applies these decisions, which are called verdicts.  A look is one scan for
 * the due deliveries of a sync.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/extension.h"
#include "base/query.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "rights/settings.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "sync/ack.h"
#include "sync/delivery.h"
#include "sync/delivery_row.h"
#include "sync/due.h"
#include "sync/look.h"
#include "sync/pace.h"
#include "sync/pause.h"
#include "sync/place.h"
#include "sync/tally.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_fetch);
PG_FUNCTION_INFO_V1(postalytics_next_due);

/* Interval between two looks of a waiting fetch, in milliseconds. */
#define LOOK_INTERVAL	50

/* objsubid of the lock that a waiting fetch holds; see metrics.sql. */
#define WAITING_FETCH	1

/* ---- the verdicts ---- */

/*
 * Parameters of postpone_query.  The first two are arrays of the same length:
 * each delivery is postponed until the time at the same position.
 */
enum
{
	POSTPONE_TIDS, POSTPONE_TIMES, POSTPONE_CLOCK, N_POSTPONE
};

static SqlQuery postpone_query = {
	.sql = "UPDATE postalytics.deliveries_unfinished AS d"
	" SET due_at = greatest(f.until, $3)"
	" FROM unnest($1, $2) AS f (place, until)"
	" WHERE d.ctid = f.place",
	.result = SPI_OK_UPDATE,
	.nparameters = N_POSTPONE,
	.types = {
		[POSTPONE_TIDS] = TIDARRAYOID,
		[POSTPONE_TIMES] = TIMESTAMPTZARRAYOID,
		[POSTPONE_CLOCK] = TIMESTAMPTZOID
	}
};

static void
postpone(Datum tids, Datum *times, int count)
{
	Datum		values[N_POSTPONE] = {
		[POSTPONE_TIDS] = tids,
		[POSTPONE_TIMES] = PointerGetDatum(construct_array(times, count, TIMESTAMPTZOID, sizeof(TimestampTz),
														   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)),
		[POSTPONE_CLOCK] = TimestampTzGetDatum(due_clock())
	};

	query_run(&postpone_query, values, NULL);
}

/* Parameters of give_up_query. */
enum
{
	GIVE_UP_TIDS, GIVE_UP_NOW, N_GIVE_UP
};

static SqlQuery give_up_query = {
	.sql = "UPDATE postalytics.deliveries_unfinished AS d"
	" SET state = 'dead',"
	"     due_at = 'infinity',"
	"     lease_until = NULL,"
	"     reason = 'lease_expired',"
	"     errors = postalytics.with_error(d.errors, d.attempt, $2, 'lease expired'),"
	"     failed_at = $2"
	" WHERE d.ctid = ANY ($1)",
	.result = SPI_OK_UPDATE,
	.nparameters = N_GIVE_UP,
	.types = {[GIVE_UP_TIDS] = TIDARRAYOID,[GIVE_UP_NOW] = TIMESTAMPTZOID}
};

static void
give_up(Datum tids, TimestampTz now)
{
	Datum		values[N_GIVE_UP] = {
		[GIVE_UP_TIDS] = tids,
		[GIVE_UP_NOW] = TimestampTzGetDatum(now)
	};

	query_run(&give_up_query, values, NULL);
}

/* Apply the verdicts other than LEASE. */
static void
apply_verdicts(const Found *found, TimestampTz now)
{
	for (Verdict verdict = POSTPONE; verdict < N_VERDICTS; verdict++)
	{
		int			count = found->verdict[verdict].count;
		Datum		tids;

		if (count == 0)
			continue;
		tids = tid_array(found->verdict[verdict].tids, count);
		switch (verdict)
		{
			case POSTPONE:
				postpone(tids, found->verdict[verdict].times, count);
				break;
			case GIVE_UP:
				give_up(tids, now);
				break;
			case SUPERSEDE:
				finish_deliveries(tids, "superseded", now);
				break;
			case CANCEL:
				finish_deliveries(tids, "cancelled", now);
				break;
			case LEASE:
				break;
		}
	}
}

/* Parameters of lease_query. */
enum
{
	LEASE_TIDS, LEASE_NOW, LEASE_UNTIL, LEASE_SESSION, N_LEASE
};

/* The query returns the columns listed in leased_columns of delivery_row.c. */
static SqlQuery lease_query = {
	.sql = "UPDATE postalytics.deliveries_unfinished AS d"
	" SET state = 'leased',"
	"     attempt = d.attempt + 1,"
	"     lease_until = $3,"
	"     leases = d.leases || $4,"
	"     errors = CASE d.state"
	"                  WHEN 'leased' THEN postalytics.with_error(d.errors, d.attempt, $2, 'lease expired')"
	"                  ELSE d.errors"
	"              END,"
	"     failed_at = CASE d.state WHEN 'leased' THEN $2 ELSE d.failed_at END"
	" WHERE d.ctid = ANY ($1)"
	" RETURNING d.delivery_id, d.attempt, d.is_test, d.status, d.occurred_at, d.due_at, d.piece_id,"
	"           d.account, d.payload",
	.result = SPI_OK_UPDATE_RETURNING,
	.nparameters = N_LEASE,
	.types = {
		[LEASE_TIDS] = TIDARRAYOID,
		[LEASE_NOW] = TIMESTAMPTZOID,
		[LEASE_UNTIL] = TIMESTAMPTZOID,
		[LEASE_SESSION] = INT8OID
	}
};

/* Lease the deliveries to this session until a time, and add them to the result. */
static void
lease(const Found *found, TimestampTz now, TimestampTz until, ReturnSetInfo *result)
{
	Datum		values[N_LEASE] = {
		[LEASE_TIDS] = tid_array(found->verdict[LEASE].tids, found->verdict[LEASE].count),
		[LEASE_NOW] = TimestampTzGetDatum(now),
		[LEASE_UNTIL] = TimestampTzGetDatum(until),
		[LEASE_SESSION] = Int64GetDatum(session_id())
	};

	query_run(&lease_query, values, NULL);
	return_leased(result);
}

/* ---- fetch ---- */

/*
 * Find up to batch due deliveries, but no more than the sync's limits allow
 * (pace.c), and lock them.  Record that those to be leased are leased until a time.
 */
static void
look_at_pace(const Sync *sync, TimestampTz now, TimestampTz until, int batch, Found *found)
{
	int			count;

	found->batch = pace_begin(sync, batch);
	if (found->batch > 0)
		look_for_due(sync, now, found->batch, found);
	count = found->verdict[LEASE].count;
	if (is_paced(sync))
		pace_end(sync, tid_array(found->verdict[LEASE].tids, count), count, until);
}

/*
 * Execute one look.  Lease the deliveries that are ready, and apply the verdicts
 * to the other deliveries that were found.
 */
static void
look_once(FunctionCallInfo fcinfo, int batch, Found *found)
{
	TimestampTz now;
	TimestampTz until;
	const Sync *sync;
	SavedUser	caller;

	/*
	 * Lock events before deliveries, as code that retires a month does.  Read
	 * the sync after that, because it may have changed during the wait for
	 * the lock.
	 */
	LockRelationOid(extension_relation("events"), AccessShareLock);
	now = GetCurrentTimestamp();
	until = time_after(now, required_argument(fcinfo, 2, "lease"), "lease");
	sync = sync_argument(fcinfo);
	memset(found, 0, sizeof(*found));
	if (!sync->enabled)
		return;
	caller = switch_to_owner();
	SPI_connect();
	if (get_pause_end(sync, now) == DT_NOBEGIN)
		look_at_pace(sync, now, until, batch, found);
	apply_verdicts(found, now);
	if (found->verdict[LEASE].count > 0)
	{
		lease(found, now, until, (ReturnSetInfo *) fcinfo->resultinfo);
		tally_attempts(sync, found->verdict[LEASE].count);
		tally_flush(sync);
	}
	SPI_finish();
	restore_user(caller);
}

/*
 * As look_once, but release all locks if nothing was found, so that a waiting
 * fetch does not block maintain().
 */
static void
look_and_release(FunctionCallInfo fcinfo, int batch, Found *found)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		look_once(fcinfo, batch, found);
	}
	PG_CATCH();
	{
		/*
		 * End the subtransaction here, because an exception handler of the
		 * caller would take it for its own.
		 */
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
		ReThrowError(error);
	}
	PG_END_TRY();
	if (found->count > 0)
		ReleaseCurrentSubTransaction();
	else
	{
		keep_places(true);
		keep_tallies(true);
		RollbackAndReleaseCurrentSubTransaction();
		keep_places(false);
		keep_tallies(false);
	}
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
}

/*
 * Lease due deliveries.  True if any rows were changed, even if none were leased:
 * a fetch that continued to wait would keep the changed rows locked.
 */
static bool
fetch_due(FunctionCallInfo fcinfo, int batch, bool may_wait)
{
	Found		found;
	bool		done = false;

	do
	{
		if (!sync_argument(fcinfo)->enabled)
			break;
		CHECK_FOR_INTERRUPTS();
		if (may_wait)
			look_and_release(fcinfo, batch, &found);
		else
			look_once(fcinfo, batch, &found);
		done |= found.count > 0;
	} while (found.verdict[LEASE].count == 0 &&
			 (found.count > found.verdict[POSTPONE].count ||
			  (found.batch > 0 && found.count >= found.batch)));
	return done;
}

/* Sleep until the next look or the deadline, whichever is earlier. */
static void
wait_to_look(TimestampTz deadline)
{
	long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 Min(Max(left, 1), LOOK_INTERVAL), PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	AcceptInvalidationMessages();
}

/*
 * Show in pg_locks whether this session is waiting in fetch.  Locks:
 * AccessShareLock on the extension, with objsubid WAITING_FETCH.  No other lock
 * conflicts with it.
 */
static void
show_waiting(bool waiting)
{
	Oid			extension = get_extension_oid(EXTENSION_NAME, false);

	if (waiting)
		LockDatabaseObject(ExtensionRelationId, extension, WAITING_FETCH, AccessShareLock);
	else
		UnlockDatabaseObject(ExtensionRelationId, extension, WAITING_FETCH, AccessShareLock);
}

/*
 * fetch(sync text, batch integer, lease interval, max_wait interval,
 *		 ack bigint[]) returns setof delivery
 *
 * Finishes the deliveries in ack, as the function ack does, unless the argument is
 * NULL.  Then leases up to batch due deliveries to the caller, in the order of
 * due_at.  Leases at most one delivery per piece if the sync is ordered, fewer
 * than batch if the sync's limits require it, and none while the sync is disabled
 * or paused.
 *
 * If there are no deliveries to lease, repeats the look until max_wait has passed,
 * or the setting max_wait if it is shorter.  Returns early, without rows, if a
 * look has only cancelled, superseded, postponed or given up deliveries.  Does not
 * wait if ack names any deliveries, because their row locks last until the
 * transaction ends.
 *
 * Locks: those of ack, AccessShareLock on events, the rows found, with SKIP
 * LOCKED, and, during a wait, that of show_waiting.  Errors: those of
 * sync_argument and ack, 22004 for NULL, 22023 for a batch below 1, a negative or
 * infinite interval, or a sync that is not durable, 25006 in a read-only
 * transaction, 55000 if the extension's tables were altered.
 */
Datum
postalytics_fetch(PG_FUNCTION_ARGS)
{
	int			batch = DatumGetInt32(required_argument(fcinfo, 1, "batch"));
	TimestampTz now = GetCurrentTimestamp();
	Interval	longest = current_settings()->max_wait;
	TimestampTz deadline = Min(time_after(now, required_argument(fcinfo, 3, "max_wait"), "max_wait"),
							   time_after(now, IntervalPGetDatum(&longest), "max_wait"));
	ArrayType  *acked = PG_ARGISNULL(4) ? NULL : PG_GETARG_ARRAYTYPE_P(4);
	bool		is_waiting = false;

	if (batch < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"batch\" must be at least 1")));
	PreventCommandIfReadOnly("fetch");
	InitMaterializedSRF(fcinfo, 0);
	if (acked != NULL && ArrayGetNItems(ARR_NDIM(acked), ARR_DIMS(acked)) > 0)
	{
		(void) sync_argument(fcinfo);
		(void) ack_deliveries(PG_GETARG_TEXT_PP(0), acked, NULL);
		deadline = now;			/* do not wait while holding ack's row locks */
	}
	while (!fetch_due(fcinfo, batch, GetCurrentTimestamp() < deadline) &&
		   GetCurrentTimestamp() < deadline)
	{
		if (!is_waiting)
			show_waiting(true);
		is_waiting = true;
		wait_to_look(deadline);
	}
	if (is_waiting)
		show_waiting(false);
	return (Datum) 0;
}

/*
 * next_due(sync text) returns timestamptz
 *
 * Returns the earliest time, as far as is known, at which a delivery can be
 * fetched.  This time is in the past if a delivery can be fetched now.  It is
 * never before the end of a pause, nor before the sync's limits allow another
 * lease.  NULL if no delivery is waiting or leased, or if the sync is disabled.
 * Errors: those of sync_argument, 55000 if the extension's tables were altered.
 */
Datum
postalytics_next_due(PG_FUNCTION_ARGS)
{
	const Sync *sync = sync_argument(fcinfo);
	TimestampTz now = GetCurrentTimestamp();
	SavedUser	caller;
	TimestampTz next;
	TimestampTz pause_end;
	TimestampTz paced_until;

	if (!sync->enabled)
		PG_RETURN_NULL();
	caller = switch_to_owner();
	SPI_connect();
	next = look_for_next(sync, now);
	pause_end = get_pause_end(sync, now);
	paced_until = pace_next(sync, now);
	SPI_finish();
	restore_user(caller);
	if (next == DT_NOEND)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(Max(next, Max(pause_end, paced_until)));
}
