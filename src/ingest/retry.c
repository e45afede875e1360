/*
 * retry.c
 *		retry_rejects: ingests the rejects again.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include <limits.h>

#include "base/compat.h"
#include "base/extension.h"
#include "base/query.h"
#include "catalog/pg_type.h"
#include "feed/reader.h"
#include "fmgr.h"
#include "ingest/store.h"
#include "rights/binding.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(postalytics_retry_rejects);

/*
 * Limits on the rejects that are read at once: their number, and the total size
 * of their payloads in bytes.  Each payload can be as large as a call.
 */
#define RETRY_CHUNK		10000
#define RETRY_BYTES		(64 * 1024 * 1024)

/* A reject that is being read again. */
typedef struct Retried
{
	int64		reject_id;
	const char *reason;			/* the stored reason */
	EventSource *source;
} Retried;

/* Parameters of read_query. */
enum
{
	READ_AFTER, READ_UNTIL, READ_ALL, READ_ACCOUNTS, N_READ
};

static const char read_query[] =
"SELECT r.reject_id, r.reason, r.account, r.payload"
" FROM postalytics.rejects AS r"
" WHERE r.reject_id > $1"
"   AND r.reject_id <= $2"
"   AND r.payload IS NOT NULL"
"   AND ($3 OR r.account = ANY ($4))"
" ORDER BY r.reject_id"
" FOR UPDATE SKIP LOCKED";

/*
 * Open a cursor over the rejects of these accounts whose reject_id is greater
 * than after and at most until.  Locks the rows that are fetched, and skips
 * those locked by other transactions.
 */
static Portal
open_rejects(const AllowedAccounts *bound, int64 after, int64 until)
{
	Oid			types[N_READ] = {
		[READ_AFTER] = INT8OID,
		[READ_UNTIL] = INT8OID,
		[READ_ALL] = BOOLOID,
		[READ_ACCOUNTS] = TEXTARRAYOID
	};
	Datum		values[N_READ] = {
		[READ_AFTER] = Int64GetDatum(after),
		[READ_UNTIL] = Int64GetDatum(until),
		[READ_ALL] = BoolGetDatum(bound->all),
		[READ_ACCOUNTS] = account_array(bound)
	};

	return SPI_cursor_open_with_args(NULL, read_query, N_READ, types, values, NULL, false, 0);
}

/*
 * Read a row of read_query into the batch, and return the size of its payload
 * in bytes.  Each reject has the limits of a separate call, except that
 * max_new_months applies to all rejects together.
 */
static uint32
read_reject(EventBatch *batch, HeapTuple row, TupleDesc tupdesc, Retried *retried)
{
	Call	   *call = batch->call;
	bool		isnull;
	text	   *payload = DatumGetTextPP(SPI_getbinval(row, tupdesc, 4, &isnull));
	EventAccount account;

	account.name = SPI_getvalue(row, tupdesc, 3);
	account.is_fixed = account.name[0] != '\0';
	retried->reject_id = DatumGetInt64(SPI_getbinval(row, tupdesc, 1, &isnull));
	retried->reason = SPI_getvalue(row, tupdesc, 2);
	batch->call = call_create(batch->context, false);

	/*
	 * The batch points into SPI's memory, which is valid until SPI_finish.
	 * The batch is written to the spill before SPI_finish is called.
	 */
	retried->source = event_batch_read(batch, VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload), &account);
	batch->call = call;
	return VARSIZE_ANY_EXHDR(payload);
}

/*
 * Read rejects of these accounts into the batch, beginning with the first whose
 * reject_id is greater than after, and not beyond the reject_id until.  Returns
 * the number of rejects read, which is 0 at the end, and the rejects in
 * *retried.
 */
static int
read_rejects(EventBatch *batch, const AllowedAccounts *bound, int64 after, int64 until, Retried **retried)
{
	Portal		cursor = open_rejects(bound, after, until);
	int			count = 0;
	uint64		bytes = 0;

	*retried = MemoryContextAlloc(batch->context, RETRY_CHUNK * sizeof(Retried));
	while (count < RETRY_CHUNK && bytes < RETRY_BYTES)
	{
		SPI_cursor_fetch(cursor, true, 1);
		if (SPI_processed == 0)
			break;
		bytes += read_reject(batch, SPI_tuptable->vals[0], SPI_tuptable->tupdesc, &(*retried)[count++]);
	}
	SPI_cursor_close(cursor);
	return count;
}

static SqlQuery newest_query = {
	.sql = "SELECT max(r.reject_id)"
	" FROM postalytics.rejects AS r",
	.result = SPI_OK_SELECT
};

/* Return the reject_id of the newest reject, or 0 if there are no rejects. */
static int64
newest_reject(void)
{
	bool		isnull;
	Datum		newest;

	SPI_connect();
	query_run(&newest_query, NULL, NULL);
	newest = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	SPI_finish();
	return isnull ? 0 : DatumGetInt64(newest);
}

static SqlQuery delete_rejects_query = {
	.sql = "DELETE FROM postalytics.rejects AS r"
	" WHERE r.reject_id = ANY ($1)",
	.result = SPI_OK_DELETE,
	.nparameters = 1,
	.types = {INT8ARRAYOID}
};

/* Delete the rejects that now have accepted events or no rejected events. */
static void
delete_rejects(const Retried *retried, int count)
{
	Datum	   *ids = palloc(count * sizeof(Datum));
	int			nids = 0;
	ArrayType  *array;
	Datum		values[1];

	for (int i = 0; i < count; i++)
	{
		const EventSource *source = retried[i].source;

		if (source->accepted > 0 || source->rejected == 0)
			ids[nids++] = Int64GetDatum(retried[i].reject_id);
	}
	if (nids == 0)
		return;
	array = construct_array(ids, nids, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	values[0] = PointerGetDatum(array);
	query_run(&delete_rejects_query, values, NULL);
}

/* Parameters of reason_query. */
enum
{
	REASON_REJECT_ID, REASON_TEXT, N_REASON
};

static SqlQuery reason_query = {
	.sql = "UPDATE postalytics.rejects AS r"
	" SET reason = $2"
	" WHERE r.reject_id = $1",
	.result = SPI_OK_UPDATE,
	.nparameters = N_REASON,
	.types = {[REASON_REJECT_ID] = INT8OID,[REASON_TEXT] = TEXTOID}
};

static void
update_reason(int64 reject_id, const char *reason)
{
	Datum		values[N_REASON] = {
		[REASON_REJECT_ID] = Int64GetDatum(reject_id),
		[REASON_TEXT] = CStringGetTextDatum(reason)
	};

	query_run(&reason_query, values, NULL);
}

/*
 * Keep the rejects that still have no accepted events in the table, and update
 * their reasons.  Their new rejects are removed from the batch, so that they
 * are not stored again.  Returns the number of rejected events of the rejects
 * kept.  The number of a source is its index in retried.
 */
static int64
keep_rejects(EventBatch *batch, const Retried *retried, int count)
{
	int64		kept = 0;
	int64		n = 0;

	for (int64 i = 0; i < batch->nrejects; i++)
	{
		const Reject *reject = &batch->rejects[i];
		const Retried *old = &retried[reject->source->number];

		if (reject->source->accepted > 0)
			batch->rejects[n++] = *reject;
		else if (reject->source->rejected <= batch->settings.max_rejects && strcmp(reject->reason, old->reason) != 0)
			update_reason(old->reject_id, reject->reason);
	}
	batch->nrejects = n;
	for (int i = 0; i < count; i++)
		if (retried[i].source->accepted == 0)
			kept += retried[i].source->rejected;
	batch->nrejected -= kept;
	return kept;
}

/*
 * retry_rejects() returns ingest_result
 *
 * Ingests rejects again, because field_names, status_names or settings may have
 * changed.  A manager retries all rejects.  Any other user retries the rejects
 * of the accounts for which that user may ingest.  Rejects whose events are now
 * accepted, at least in part, or ignored are deleted, and their other events
 * are stored as new rejects.  Rejects that another call is retrying are skipped.
 * The settings max_campaigns and max_new_months do not apply to a manager.
 *
 * Locks: the rows of the rejects, and the locks of ingest.  Errors: those of
 * ingest; 42501 if the current user may not ingest.
 */
Datum
postalytics_retry_rejects(PG_FUNCTION_ARGS)
{
	IngestResult result;
	bool		is_manager = may_manage();
	AllowedAccounts bound = {.all = is_manager};
	SavedUser	caller;
	Call	   *call = call_create(CurrentMemoryContext, false);
	Spill	   *spill = spill_create(CurrentMemoryContext);
	int64		last = 0;
	int64		newest;
	int64		rejected = 0;
	int			count;

	if (!bound.all)
		ingest_accounts(&bound);
	caller = switch_to_owner();
	newest = newest_reject();	/* rejects stored by this call are not read */
	do
	{
		EventBatch *batch = event_batch_create(CurrentMemoryContext, call);
		Retried    *retried;

		if (is_manager)
			batch->settings.max_campaigns = batch->settings.max_new_months = INT_MAX;
		SPI_connect();
		count = read_rejects(batch, &bound, last, newest, &retried);
		if (count > 0)
		{
			last = retried[count - 1].reject_id;
			delete_rejects(retried, count);
			rejected += keep_rejects(batch, retried, count);
			spill_batch(batch, spill);
			rejected += batch->nrejected;
		}
		SPI_finish();
		MemoryContextDelete(batch->context);
	} while (count > 0);
	result = store_spill(spill);
	result.rejected = rejected;
	spill_end(spill);
	restore_user(caller);
	return form_result(fcinfo, result);
}
