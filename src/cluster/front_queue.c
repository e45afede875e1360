/*
 * front_queue.c
 *		fetch, ack, nack and next_due at the front of a cluster.
 *
 * fetch queries the slots in round-robin order: each call of a session begins with the
 * slot after the one where the previous call ended.  A slot that fails, or does not
 * respond within postalytics_status.fetch_timeout, is skipped for a while.  ack and nack go
 * to the slots that assigned the ids.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/extension.h"
#include "catalog/pg_type.h"
#include "cluster/slots.h"
#include "common/pg_prng.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "rights/binding.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "sync/delivery.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(postalytics_front_fetch);
PG_FUNCTION_INFO_V1(postalytics_front_ack);
PG_FUNCTION_INFO_V1(postalytics_front_nack);
PG_FUNCTION_INFO_V1(postalytics_front_next_due);

/* How long a slot that failed is skipped, in milliseconds. */
#define SKIP_TIME		10000

/* The waits between two rounds of a waiting fetch, in milliseconds. */
#define FIRST_WAIT		50
#define LONGEST_WAIT	1000

/* ---- ack and nack ---- */

/* The claims of a call, as arrays with an element for each. */
typedef struct FrontClaims
{
	int			count;
	Datum		slots;			/* integer[] */
	Datum		ids;			/* bigint[] */
	Datum		attempts;		/* integer[], with 0 for no attempt */
	bool		by_attempt;
} FrontClaims;

/*
 * Read delivery_ids and attempts, either of which may be NULL.  Claims of NULL, and of
 * ids that no slot can have assigned, are left out.  Error 22023 if the arrays have
 * different lengths.
 */
static void
read_claims(ArrayType *delivery_ids, ArrayType *attempts, FrontClaims *claims)
{
	int			slots = number_of_slots();
	Datum	   *ids = NULL;
	Datum	   *numbers = NULL;
	bool	   *id_nulls = NULL;
	bool	   *number_nulls = NULL;
	Datum	   *slot_of_id;
	int			nids = 0;
	int			nnumbers = 0;

	memset(claims, 0, sizeof(*claims));
	claims->by_attempt = attempts != NULL;
	if (delivery_ids != NULL)
		deconstruct_array(delivery_ids, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &ids, &id_nulls, &nids);
	if (attempts != NULL)
		deconstruct_array(attempts, INT4OID, sizeof(int32), true, TYPALIGN_INT, &numbers, &number_nulls, &nnumbers);
	if (delivery_ids != NULL && attempts != NULL && nids != nnumbers)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("attempts and delivery_ids must have the same number of elements")));
	slot_of_id = palloc(Max(nids, 1) * sizeof(Datum));
	if (numbers == NULL)
		numbers = palloc0(Max(nids, 1) * sizeof(Datum));
	for (int i = 0; i < nids; i++)
	{
		int64		slot = id_nulls[i] ? -1 : DatumGetInt64(ids[i]) >> SLOT_ID_BITS;

		if (slot < 0 || slot >= slots || (claims->by_attempt && number_nulls[i]))
			continue;
		slot_of_id[claims->count] = Int32GetDatum((int32) slot);
		ids[claims->count] = ids[i];
		numbers[claims->count++] = numbers[i];
	}
	claims->slots = PointerGetDatum(construct_array(slot_of_id, claims->count, INT4OID, sizeof(int32), true, TYPALIGN_INT));
	claims->ids = PointerGetDatum(construct_array(ids, claims->count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	claims->attempts = PointerGetDatum(construct_array(numbers, claims->count, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

/* Run a query that returns a number, and return the number. */
static int64
execute_count(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	bool		isnull;
	Datum		count;

	SPI_connect();
	slots_execute(sql, nargs, types, values, nulls, setting_fetch_timeout);
	count = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	SPI_finish();
	return isnull ? 0 : DatumGetInt64(count);
}

/* Parameters of ack_query. */
enum
{
	ACK_SYNC, ACK_SLOTS, ACK_IDS, ACK_ATTEMPTS, ACK_BY_ATTEMPT, N_ACK
};

static const char ack_query[] =
"SELECT sum(r)::bigint FROM postalytics.slots_ack($1, $2, $3, $4, $5) AS r";

static Oid	ack_types[N_ACK] = {
	[ACK_SYNC] = TEXTOID,[ACK_SLOTS] = INT4ARRAYOID,[ACK_IDS] = INT8ARRAYOID,
	[ACK_ATTEMPTS] = INT4ARRAYOID,[ACK_BY_ATTEMPT] = BOOLOID
};

static void
set_ack_values(Datum sync, const FrontClaims *claims, Datum *values)
{
	values[ACK_SYNC] = sync;
	values[ACK_SLOTS] = claims->slots;
	values[ACK_IDS] = claims->ids;
	values[ACK_ATTEMPTS] = claims->attempts;
	values[ACK_BY_ATTEMPT] = BoolGetDatum(claims->by_attempt);
}

/*
 * Acknowledge the deliveries that were passed to fetch.  An error becomes a warning, so
 * that a slot that is down does not keep the worker from the deliveries of others.
 */
static void
ack_before_fetch(Datum sync, const FrontClaims *claims)
{
	Datum		values[N_ACK];
	SavedUser	caller = switch_to_owner();
	ErrorData  *error;

	set_ack_values(sync, claims, values);
	SPI_connect();
	error = slots_try(ack_query, N_ACK, ack_types, values, NULL, setting_fetch_timeout);
	SPI_finish();
	restore_user(caller);
	if (error != NULL)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not acknowledge all deliveries: %s", error->message),
				 errdetail("Deliveries that were not acknowledged can be leased again after their lease expires.")));
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
 * As ack of postalytics_status.  Errors: those of ack, 0A000 in a transaction block,
 * 55000 if the cluster is not complete, 08006 if a slot cannot be reached; then the
 * deliveries of other slots may be finished, and the call can be repeated.
 */
Datum
postalytics_front_ack(PG_FUNCTION_ARGS)
{
	FrontClaims claims;
	Datum		values[N_ACK];
	SavedUser	caller;
	int64		count;

	(void) sync_argument(fcinfo);
	check_no_block("ack");
	read_claims(array_argument(fcinfo, 1), array_argument(fcinfo, 2), &claims);
	if (claims.count == 0)
		PG_RETURN_INT64(0);
	set_ack_values(PG_GETARG_DATUM(0), &claims, values);
	caller = switch_to_owner();
	count = execute_count(ack_query, N_ACK, ack_types, values, NULL);
	restore_user(caller);
	PG_RETURN_INT64(count);
}

/* Parameters of nack_query. */
enum
{
	NACK_SYNC, NACK_SLOTS, NACK_IDS, NACK_ATTEMPTS, NACK_BY_ATTEMPT, NACK_ERROR, NACK_RETRY_IN, NACK_DEAD, N_NACK
};

static const char nack_query[] =
"SELECT sum(r)::bigint FROM postalytics.slots_nack($1, $2, $3, $4, $5, $6, $7, $8) AS r";

static const char pause_query[] =
"SELECT count(*) FROM postalytics.slots_pause_by_nack($1, $2, $3) AS r";

/*
 * nack(sync text, delivery_ids bigint[], error text, retry_in interval,
 *		dead boolean, attempts integer[], pause interval) returns bigint
 *
 * As nack of postalytics_status; a pause applies to all slots.  Errors: those of nack
 * and those of ack at the front.
 */
Datum
postalytics_front_nack(PG_FUNCTION_ARGS)
{
	FrontClaims claims;
	SavedUser	caller;
	int64		count = 0;
	Oid			types[N_NACK] = {
		[NACK_SYNC] = TEXTOID,[NACK_SLOTS] = INT4ARRAYOID,[NACK_IDS] = INT8ARRAYOID,
		[NACK_ATTEMPTS] = INT4ARRAYOID,[NACK_BY_ATTEMPT] = BOOLOID,[NACK_ERROR] = TEXTOID,
		[NACK_RETRY_IN] = INTERVALOID,[NACK_DEAD] = BOOLOID
	};
	Datum		values[N_NACK];
	char		nulls[N_NACK];

	(void) sync_argument(fcinfo);
	values[NACK_DEAD] = required_argument(fcinfo, 4, "dead");
	if (!PG_ARGISNULL(3))
		(void) time_after(GetCurrentTimestamp(), PG_GETARG_DATUM(3), "retry_in");
	if (!PG_ARGISNULL(6))
		(void) time_after(GetCurrentTimestamp(), PG_GETARG_DATUM(6), "pause");
	check_no_block("nack");
	read_claims(array_argument(fcinfo, 1), array_argument(fcinfo, 5), &claims);
	values[NACK_SYNC] = PG_GETARG_DATUM(0);
	values[NACK_SLOTS] = claims.slots;
	values[NACK_IDS] = claims.ids;
	values[NACK_ATTEMPTS] = claims.attempts;
	values[NACK_BY_ATTEMPT] = BoolGetDatum(claims.by_attempt);
	values[NACK_ERROR] = PG_GETARG_DATUM(2);
	memset(nulls, ' ', sizeof(nulls));
	nulls[NACK_ERROR] = PG_ARGISNULL(2) ? 'n' : ' ';
	values[NACK_RETRY_IN] = PG_GETARG_DATUM(3);
	nulls[NACK_RETRY_IN] = PG_ARGISNULL(3) ? 'n' : ' ';

	caller = switch_to_owner();
	if (claims.count > 0)
		count = execute_count(nack_query, N_NACK, types, values, nulls);
	if (!PG_ARGISNULL(6))
	{
		Oid			pause_types[] = {TEXTOID, INTERVALOID, TEXTOID};
		Datum		pause_values[] = {values[NACK_SYNC], PG_GETARG_DATUM(6), values[NACK_ERROR]};
		char		pause_nulls[] = {' ', ' ', nulls[NACK_ERROR]};

		(void) execute_count(pause_query, lengthof(pause_types), pause_types, pause_values, pause_nulls);
	}
	restore_user(caller);
	PG_RETURN_INT64(count);
}

/* ---- fetch ---- */

/* The slot with which the next fetch of this session begins. */
static int	next_slot = -1;

/* Until when each slot is skipped; 0 if it is not. */
static TimestampTz skipped_until[MAX_SLOTS];

/* Parameters of fetch_query. */
enum
{
	FETCH_SLOT, FETCH_SYNC, FETCH_BATCH, FETCH_LEASE, N_FETCH
};

static const char fetch_query[] =
"SELECT * FROM postalytics.slots_fetch($1, $2, $3, $4)";

/* The outcome of a round. */
typedef struct Round
{
	int			count;			/* number of deliveries that were leased */
	int			failed;			/* number of slots that failed */
	ErrorData  *error;			/* the last error */
} Round;

/* Raise a warning.  If the slot did not respond, skip it for a while. */
static void
report_failure(int slot, const ErrorData *error)
{
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_CONNECTION_EXCEPTION)
	{
		skipped_until[slot] = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), SKIP_TIME);
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("skipping slot %s for %d seconds: %s", slot_name(slot), SKIP_TIME / 1000, error->message)));
	}
	else
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not fetch from slot %s: %s", slot_name(slot), error->message)));
}

/* True if each slot is being skipped. */
static bool
all_skipped(int slots)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int slot = 0; slot < slots; slot++)
		if (skipped_until[slot] <= now)
			return false;
	return true;
}

/*
 * Fetch up to batch deliveries from a slot, and add them to the result.  If the slot
 * fails, that is only a warning: other slots may have leased deliveries, which an error
 * would lose until their leases expire.
 */
static void
fetch_from(FunctionCallInfo fcinfo, int slot, int batch, Round *round)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			types[N_FETCH] = {INT4OID, TEXTOID, INT4OID, INTERVALOID};
	Datum		values[N_FETCH] = {
		[FETCH_SLOT] = Int32GetDatum(slot),
		[FETCH_SYNC] = PG_GETARG_DATUM(0),
		[FETCH_BATCH] = Int32GetDatum(batch),
		[FETCH_LEASE] = PG_GETARG_DATUM(2)
	};
	SavedUser	caller;
	ErrorData  *error;

	caller = switch_to_owner();
	SPI_connect();
	error = slots_try(fetch_query, N_FETCH, types, values, NULL, setting_fetch_timeout);
	if (error == NULL)
	{
		skipped_until[slot] = 0;
		round->count += SPI_processed;
		for (uint64 i = 0; i < SPI_processed; i++)
			tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	}
	else
	{
		round->failed++;
		round->error = error;
		report_failure(slot, error);
	}
	SPI_finish();
	restore_user(caller);
}

/*
 * Fetch from each slot once, until the batch is full, and return the number of
 * deliveries that were leased.  Raises the error of a slot if all slots failed in this
 * round.
 */
static int
fetch_round(FunctionCallInfo fcinfo, int batch)
{
	int			slots = number_of_slots();
	Round		round = {0};

	if (next_slot < 0)			/* sessions begin with different slots */
		next_slot = pg_prng_uint64_range(&pg_global_prng_state, 0, slots - 1);
	if (all_skipped(slots))		/* better than to return nothing silently */
		memset(skipped_until, 0, sizeof(skipped_until));
	for (int i = 0; i < slots && round.count < batch; i++)
	{
		CHECK_FOR_INTERRUPTS();
		next_slot = (next_slot + 1) % slots;
		if (skipped_until[next_slot] <= GetCurrentTimestamp())
			fetch_from(fcinfo, next_slot, batch - round.count, &round);
	}
	if (round.failed == slots)
		ReThrowError(round.error);
	return round.count;
}

/*
 * fetch(sync text, batch integer, lease interval, max_wait interval, ack bigint[])
 *		returns setof delivery
 *
 * As fetch of postalytics_status, from all slots.  While it waits, it queries them up to
 * once a second.  An error of a slot, or of the acknowledgement, becomes a warning.
 * Errors: 22004 and 22023 for the arguments, those of sync_argument, 0A000 in a
 * transaction block, 55000 if the cluster is not complete, and the error of a slot if all
 * slots fail.
 */
Datum
postalytics_front_fetch(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz deadline;
	FrontClaims claims;
	int			batch;
	long		pause = FIRST_WAIT;

	(void) sync_argument(fcinfo);
	batch = DatumGetInt32(required_argument(fcinfo, 1, "batch"));
	if (batch < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch must be at least 1")));
	(void) time_after(now, required_argument(fcinfo, 2, "lease"), "lease");
	deadline = time_after(now, required_argument(fcinfo, 3, "max_wait"), "max_wait");
	check_no_block("fetch");
	InitMaterializedSRF(fcinfo, 0);
	read_claims(array_argument(fcinfo, 4), NULL, &claims);
	if (claims.count > 0)
	{
		ack_before_fetch(PG_GETARG_DATUM(0), &claims);
		deadline = now;			/* do not wait, as on a slot */
	}
	while (sync_argument(fcinfo)->enabled && fetch_round(fcinfo, batch) == 0)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

		if (left <= 0)
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, Min(pause, left), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		pause = Min(2 * pause, LONGEST_WAIT);
	}
	return (Datum) 0;
}

/*
 * next_due(sync text) returns timestamptz
 *
 * As next_due of postalytics_status: the earliest of all slots.  Errors: those of
 * next_due, 55000 if the cluster is not complete, 08006 if a slot cannot be reached.
 */
Datum
postalytics_front_next_due(PG_FUNCTION_ARGS)
{
	Oid			types[] = {TEXTOID};
	Datum		values[1];
	Datum		earliest;
	SavedUser	caller;
	bool		isnull;

	(void) sync_argument(fcinfo);
	(void) number_of_slots();
	values[0] = PG_GETARG_DATUM(0);
	caller = switch_to_owner();
	SPI_connect();
	slots_execute("SELECT min(r) FROM postalytics.slots_next_due($1) AS r", 1, types, values, NULL, setting_fetch_timeout);
	earliest = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	SPI_finish();
	restore_user(caller);
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(earliest);
}
