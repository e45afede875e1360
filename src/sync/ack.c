/*
 * ack.c
 *		ack and nack, with which a worker reports the outcome of the
 *		deliveries that it fetched.
 *
 * A claim is a delivery id, with or without an attempt, that the caller passes
 * to say that the delivery is leased to it.  Claims that are not valid are
 * ignored.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/extension.h"
#include "base/query.h"
#include "base/text.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lookup.h"
#include "sync/ack.h"
#include "sync/breaker.h"
#include "sync/delivery.h"
#include "sync/due.h"
#include "sync/pace.h"
#include "sync/pause.h"
#include "sync/place.h"
#include "sync/tally.h"
#include "sync/wake.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_ack);
PG_FUNCTION_INFO_V1(postalytics_nack);

typedef struct Claim
{
	int64		id;
	int32		attempt;		/* 0 if no attempts were passed */
} Claim;

typedef struct Claims
{
	Claim	   *claims;			/* sorted by id and attempt */
	int			count;
	bool		by_attempt;
	const text *sync;
} Claims;

static int
compare_claims(const void *a, const void *b)
{
	const Claim *x = a;
	const Claim *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return x->attempt < y->attempt ? -1 : x->attempt > y->attempt;
}

/*
 * Read delivery_ids and attempts, either of which may be NULL, and sort the
 * claims in the order in which their rows are locked.  NULL elements claim
 * nothing.  Error 22023 if the arrays have different lengths.
 */
static void
read_claims(const text *sync, ArrayType *delivery_ids, ArrayType *attempts, Claims *claims)
{
	Datum	   *ids;
	Datum	   *numbers = NULL;
	bool	   *id_nulls;
	bool	   *number_nulls;
	int			nids;
	int			nnumbers;

	memset(claims, 0, sizeof(*claims));
	claims->sync = sync;
	claims->by_attempt = attempts != NULL;
	if (delivery_ids == NULL)
		return;
	deconstruct_array(delivery_ids, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &ids, &id_nulls, &nids);
	if (claims->by_attempt)
	{
		deconstruct_array(attempts, INT4OID, sizeof(int32), true,
						  TYPALIGN_INT, &numbers, &number_nulls, &nnumbers);
		if (nids != nnumbers)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("attempts and delivery_ids must have the same number of elements")));
	}
	claims->claims = palloc(Max(nids, 1) * sizeof(Claim));
	for (int i = 0; i < nids; i++)
	{
		if (id_nulls[i] || (claims->by_attempt && number_nulls[i]))
			continue;
		claims->claims[claims->count].id = DatumGetInt64(ids[i]);
		claims->claims[claims->count++].attempt =
			claims->by_attempt ? DatumGetInt32(numbers[i]) : 0;
	}
	qsort(claims->claims, claims->count, sizeof(Claim), compare_claims);
}

/*
 * True if the session may finish a delivery without naming the attempt.  A
 * session that held an earlier lease but not the current one is refused.  A
 * session that never held a lease is accepted, because behind a connection
 * pooler the client may have fetched the delivery through another session.
 */
static bool
may_end_lease(TupleTableSlot *slot)
{
	bool		isnull;
	Datum		leases = delivery_attribute(slot, DELIVERY_LEASES, &isnull);
	Datum	   *sessions;
	int			count;
	bool		held = false;

	if (isnull)
		return true;
	deconstruct_array(DatumGetArrayTypeP(leases), INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &sessions, NULL, &count);
	if (count > 0 && DatumGetInt64(sessions[count - 1]) == session_id())
		return true;
	for (int i = 0; i < count && !held; i++)
		held = DatumGetInt64(sessions[i]) == session_id();
	return !held;
}

/*
 * True if a claim is valid: the row in the slot is the claimed delivery, belongs
 * to the sync, is leased, and has the claimed attempt.  For a claim without an
 * attempt, may_end_lease decides instead.
 */
static bool
is_claimed(TupleTableSlot *slot, const Claims *claims, const Claim *claim)
{
	DeliveryRow row;

	read_delivery(slot, &row);
	if (row.id != claim->id || row.lease_until == DT_NOBEGIN ||
		!equal_texts(DatumGetTextPP(row.sync), claims->sync))
		return false;
	return claims->by_attempt ? row.attempt == claim->attempt : may_end_lease(slot);
}

/*
 * Lock the row of a claim, and set place to its ctid.  Returns false if the claim
 * is not valid: the delivery is finished, is not leased or is leased to another
 * worker, or belongs to another sync.  Waits for a transaction that has locked
 * the row.  Error 40001, as for lock_row.
 */
static bool
lock_claimed(Lookup *lookup, const Claims *claims, const Claim *claim,
			 LockTupleMode mode, ItemPointer place)
{
	lookup_key(lookup, 0, 1, BTEqualStrategyNumber, Int64GetDatum(claim->id));
	if (!lookup_first(lookup) || !is_claimed(lookup->slot, claims, claim))
		return false;
	*place = lookup->slot->tts_tid;
	lookup_rescan(lookup);		/* keep no buffer pin while waiting */
	return lock_row(lookup->table, place, mode, LockWaitBlock, lookup->slot) &&
		is_claimed(lookup->slot, claims, claim);
}

/*
 * Lock the rows of all valid claims, and return their number.  Stores their
 * ctids in tids, and the creation times of the deliveries in created.
 */
static int
lock_claims(const Claims *claims, LockTupleMode mode, Datum *tids, TimestampTz *created)
{
	const Sync *sync = find_sync(text_to_cstring(claims->sync));
	Relation	unfinished = open_unfinished(RowExclusiveLock);
	Lookup		lookup;
	int			count = 0;

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	lookup_begin(&lookup, unfinished, compat_primary_key(unfinished), GetActiveSnapshot(), 1);
	for (int i = 0; i < claims->count; i++)
	{
		ItemPointer place = palloc(sizeof(ItemPointerData));
		bool		isnull;

		if (i > 0 && compare_claims(&claims->claims[i], &claims->claims[i - 1]) == 0)
			continue;
		if (!lock_claimed(&lookup, claims, &claims->claims[i], mode, place))
			continue;
		created[count] = DatumGetTimestampTz(delivery_attribute(lookup.slot, DELIVERY_CREATED_AT, &isnull));
		tids[count++] = PointerGetDatum(place);
		look_again_at(sync, DatumGetTextPP(delivery_attribute(lookup.slot, DELIVERY_PIECE_ID, &isnull)),
					  DatumGetTextPP(delivery_attribute(lookup.slot, DELIVERY_ACCOUNT, &isnull)));
	}
	lookup_end(&lookup);
	PopActiveSnapshot();
	table_close(unfinished, NoLock);
	return count;
}

/*
 * Finish the deliveries of a sync that are leased to the caller, and return
 * their number.  The arrays may be NULL.  The caller has checked that the
 * current user may use the sync.  Locks and errors are as for ack.
 */
int64
ack_deliveries(const text *sync, ArrayType *delivery_ids, ArrayType *attempts)
{
	TimestampTz now = GetCurrentTimestamp();
	SavedUser	caller;
	Claims		claims;
	Datum	   *tids;
	TimestampTz *created;
	int			count;

	PreventCommandIfReadOnly("ack");
	read_claims(sync, delivery_ids, attempts, &claims);
	caller = switch_to_owner();
	tids = palloc(Max(claims.count, 1) * sizeof(Datum));
	created = palloc(Max(claims.count, 1) * sizeof(TimestampTz));
	count = lock_claims(&claims, LockTupleExclusive, tids, created);
	if (count > 0)
	{
		Datum		array = tid_array(tids, count);
		const Sync *row = find_sync(text_to_cstring(sync));

		for (int i = 0; i < count; i++)
			tally_success(row, created[i], now);
		SPI_connect();
		pace_release(row, array);
		breaker_succeeded(row);
		tally_flush(row);
		finish_deliveries(array, "done", now);
		SPI_finish();
	}
	restore_user(caller);
	return count;
}

/* Return an array argument, or NULL if it is NULL. */
static ArrayType *
array_argument(FunctionCallInfo fcinfo, int i)
{
	return PG_ARGISNULL(i) ? NULL : PG_GETARG_ARRAYTYPE_P(i);
}

/*
 * ack(sync text, delivery_ids bigint[], attempts integer[]) returns bigint
 *
 * Finishes the deliveries that are leased to the caller, and returns their
 * number.  An expired lease remains valid until another worker fetches the
 * delivery.  NULLs and repeated ids are ignored.
 *
 * Locks: the rows, in the order of delivery_id.  Errors: those of
 * sync_argument, 22023 for arrays of different lengths, 25006 in a read-only
 * transaction, 40001 as for lock_row.
 */
Datum
postalytics_ack(PG_FUNCTION_ARGS)
{
	(void) sync_argument(fcinfo);
	PG_RETURN_INT64(ack_deliveries(PG_GETARG_TEXT_PP(0), array_argument(fcinfo, 1),
								   array_argument(fcinfo, 2)));
}

/* Parameters of nack_query. */
enum
{
	NACK_TIDS, NACK_ERROR, NACK_RETRY_IN, NACK_DEAD, NACK_MAX_ATTEMPTS, NACK_NOW, N_NACK
};

/*
 * Without retry_in, the wait doubles with each attempt, from 5 seconds up to 6
 * hours.  It varies randomly by up to 25 %, so that deliveries that failed
 * together are not all retried at the same time.
 */
static SqlQuery nack_query = {
	.sql = "UPDATE postalytics.deliveries_unfinished AS d"
	" SET state = CASE WHEN $4 OR d.attempt >= $5 THEN 'dead' ELSE 'waiting' END::postalytics.delivery_state,"
	"     due_at = CASE"
	"                  WHEN $4 OR d.attempt >= $5 THEN 'infinity'"
	"                  ELSE GREATEST($6, $6 + COALESCE($3, LEAST('5 s'::interval * power(2, LEAST(d.attempt, 30) - 1), '6 h')"
	"                                         * (0.75 + random() / 2)))"
	"              END,"
	"     lease_until = NULL,"
	"     reason = CASE WHEN $4 THEN 'refused' WHEN d.attempt >= $5 THEN 'max_attempts' END,"
	"     errors = postalytics.with_error(d.errors, d.attempt, $6, left($2, 2000)),"
	"     failed_at = $6"
	" WHERE d.ctid = ANY ($1)",
	.result = SPI_OK_UPDATE,
	.nparameters = N_NACK,
	.types = {
		[NACK_TIDS] = TIDARRAYOID,
		[NACK_ERROR] = TEXTOID,
		[NACK_RETRY_IN] = INTERVALOID,
		[NACK_DEAD] = BOOLOID,
		[NACK_MAX_ATTEMPTS] = INT4OID,
		[NACK_NOW] = TIMESTAMPTZOID
	}
};

/*
 * nack(sync text, delivery_ids bigint[], error text, retry_in interval,
 *		dead boolean, attempts integer[], pause interval) returns bigint
 *
 * Records that the deliveries leased to the caller have failed, and returns
 * their number.  The deliveries are due again after retry_in or, if retry_in is
 * NULL, after a wait that grows exponentially.  They become dead if dead is true
 * or max_attempts is reached.
 *
 * A positive pause also pauses the sync for that long, unless the sync is already
 * paused for longer.  It does so even if none of the deliveries is leased to the
 * caller.
 *
 * Arguments and locks are as for ack.  Errors: those of ack, 22004 if dead is
 * NULL, 22023 if retry_in or pause is negative or infinite.
 */
Datum
postalytics_nack(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	const Sync *sync = sync_argument(fcinfo);
	bool		dead = DatumGetBool(required_argument(fcinfo, 4, "dead"));
	int			max_attempts = sync->max_attempts;
	Datum		error = PG_ARGISNULL(2) ? CStringGetTextDatum("no error given") : PG_GETARG_DATUM(2);
	TimestampTz pause_end = DT_NOBEGIN;
	TimestampTz clock;
	SavedUser	caller;
	Claims		claims;
	Datum	   *tids;
	TimestampTz *created;
	int			count;

	if (!PG_ARGISNULL(3))
		(void) time_after(now, PG_GETARG_DATUM(3), "retry_in");
	if (!PG_ARGISNULL(6))
		pause_end = time_after(now, PG_GETARG_DATUM(6), "pause");
	PreventCommandIfReadOnly("nack");
	read_claims(PG_GETARG_TEXT_PP(0), array_argument(fcinfo, 1), array_argument(fcinfo, 5), &claims);
	caller = switch_to_owner();
	tids = palloc(Max(claims.count, 1) * sizeof(Datum));
	created = palloc(Max(claims.count, 1) * sizeof(TimestampTz));
	count = lock_claims(&claims, LockTupleNoKeyExclusive, tids, created);
	clock = due_clock();
	SPI_connect();
	if (count > 0)
	{
		Datum		values[N_NACK] = {
			[NACK_TIDS] = tid_array(tids, count),
			[NACK_ERROR] = error,
			[NACK_RETRY_IN] = PG_GETARG_DATUM(3),
			[NACK_DEAD] = BoolGetDatum(dead),
			[NACK_MAX_ATTEMPTS] = Int32GetDatum(max_attempts),
			[NACK_NOW] = TimestampTzGetDatum(clock)
		};
		bool		nulls[N_NACK] = {[NACK_RETRY_IN] = PG_ARGISNULL(3)};

		pace_release(sync, values[NACK_TIDS]);
		query_run(&nack_query, values, nulls);
		breaker_failed(sync, count);
		tally_failures(sync, count);
		tally_flush(sync);
	}
	if (pause_end > now && pause_end > get_pause_end(sync, now))
		insert_pause(sync, pause_end, error);
	SPI_finish();
	restore_user(caller);
	if (count > 0 && wake_has_worker())
	{
		sync = sync_argument(fcinfo);
		wake_worker(sync->name, sync->channel, 0);
	}
	PG_RETURN_INT64(count);
}
