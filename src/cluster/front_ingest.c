/*
 * front_ingest.c
 *		ingest and inbox at the front of a cluster.
 *
 * The parts of a call are sent to all their slots in parallel, and each slot stores its
 * parts in one transaction.  If a slot fails, all parts are sent again, one slot at a
 * time, so that the other slots store theirs, and the error names each slot that failed.
 * This is safe because a slot stores each event once; events that the first attempt has
 * stored count as duplicates.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include <limits.h>

#include "base/compat.h"
#include "base/extension.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "cluster/slots.h"
#include "cluster/split.h"
#include "feed/reader.h"
#include "fmgr.h"
#include "ingest/inbox.h"
#include "ingest/ingest.h"
#include "ingest/store.h"
#include "rights/binding.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(postalytics_front_ingest);
PG_FUNCTION_INFO_V1(postalytics_front_inbox);
PG_FUNCTION_INFO_V1(postalytics_front_retry_rejects);

/* Parameters of ingest_query: arrays with an element for each part. */
enum
{
	INGEST_SLOTS, INGEST_PAYLOADS, INGEST_ACCOUNTS, INGEST_FIXED, N_INGEST
};

static const char ingest_query[] =
"SELECT sum(r.inserted)::bigint, sum(r.duplicates)::bigint, sum(r.rejected)::bigint"
" FROM postalytics.slots_ingest($1, $2, $3, $4) AS r";

/* Return the type of the payloads. */
static Oid
payloads_type(void)
{
	Oid			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid, CStringGetDatum("payloads"),
									   ObjectIdGetDatum(get_namespace_oid(EXTENSION_SCHEMA, false)));

	if (!OidIsValid(type))
		elog(ERROR, "type \"%s.payloads\" does not exist", EXTENSION_SCHEMA);
	return type;
}

/* Fill in the parameters for the parts of one slot, or of all slots if slot is -1. */
static void
set_parameters(Part *parts, int count, int slot, Datum *values)
{
	Datum	   *elements[N_INGEST];
	int			n = 0;

	for (int i = 0; i < N_INGEST; i++)
		elements[i] = palloc(count * sizeof(Datum));
	for (Part *part = parts; part != NULL; part = part->next)
	{
		if (slot >= 0 && part->slot != slot)
			continue;
		elements[INGEST_SLOTS][n] = Int32GetDatum(part->slot);
		elements[INGEST_PAYLOADS][n] = PointerGetDatum(cstring_to_text_with_len(part->json.data, part->json.len));
		elements[INGEST_ACCOUNTS][n] = CStringGetTextDatum(part->account);
		elements[INGEST_FIXED][n++] = BoolGetDatum(part->account_is_fixed);
	}
	values[INGEST_SLOTS] = PointerGetDatum(construct_array(elements[INGEST_SLOTS], n, INT4OID, 4, true, TYPALIGN_INT));
	values[INGEST_PAYLOADS] = PointerGetDatum(construct_array(elements[INGEST_PAYLOADS], n, TEXTOID, -1, false, TYPALIGN_INT));
	values[INGEST_ACCOUNTS] = PointerGetDatum(construct_array(elements[INGEST_ACCOUNTS], n, TEXTOID, -1, false, TYPALIGN_INT));
	values[INGEST_FIXED] = PointerGetDatum(construct_array(elements[INGEST_FIXED], n, BOOLOID, 1, true, TYPALIGN_CHAR));
}

/*
 * Run ingest_query for the parts of one slot, or of all slots if slot is -1.  Returns the
 * error, or NULL, as slots_try does.
 */
static ErrorData *
send_parts(Part *parts, int count, int slot)
{
	Oid			types[N_INGEST] = {
		[INGEST_SLOTS] = INT4ARRAYOID,
		[INGEST_PAYLOADS] = payloads_type(),
		[INGEST_ACCOUNTS] = TEXTARRAYOID,
		[INGEST_FIXED] = BOOLARRAYOID
	};
	Datum		values[N_INGEST];

	set_parameters(parts, count, slot, values);
	return slots_try(ingest_query, N_INGEST, types, values, NULL, setting_slot_timeout);
}

/* Add the row that ingest_query has returned to a result. */
static void
add_result(IngestResult *result)
{
	int64	   *counts[] = {&result->inserted, &result->duplicates, &result->rejected};

	for (int i = 0; i < lengthof(counts); i++)
	{
		bool		isnull;
		Datum		sum = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &isnull);

		*counts[i] += isnull ? 0 : DatumGetInt64(sum);
	}
}

/*
 * Send the parts to one slot after the other, and add to the result.  Events that a slot
 * has stored before count as duplicates.  If slots fail, raises the error of the first,
 * with a message that names all of them.
 */
static void
send_one_by_one(Part *parts, int count, IngestResult *result)
{
	ErrorData  *first = NULL;
	char	   *failed = NULL;
	int			last = -1;

	for (Part *part = parts; part != NULL; part = part->next)
	{
		ErrorData  *error;

		if (part->slot == last)
			continue;
		last = part->slot;
		error = send_parts(parts, count, last);
		if (error == NULL)
			add_result(result);
		else if (first == NULL)
		{
			first = error;
			failed = pstrdup(slot_name(last));
		}
		else
			failed = psprintf("%s, %s", failed, slot_name(last));
	}
	if (first == NULL)
		return;
	first->message = psprintf("could not store the events of slot %s: %s", failed, first->message);
	first->detail = "The events of all other slots are stored.";
	first->hint = "Repeat the whole call later; events that are stored already count as duplicates.";
	ReThrowError(first);
}

/*
 * Send the events of a batch to the slots, and return the sum of the results.  Error
 * 54000 if the batch has more rejects than setting max_rejects: those beyond the limit
 * were counted but not kept, so they cannot be sent.
 */
static IngestResult
send_batch(EventBatch *batch)
{
	IngestResult result = {0};
	int			count;
	Part	   *parts;

	if (batch->nrejected > batch->nrejects)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("payload has more than %d rejected events", batch->settings.max_rejects),
				 errdetail("The reason for the first one is: %s.", batch->rejects[0].reason),
				 errhint("Split the payload into several calls, or increase setting max_rejects with %s.configure.", EXTENSION_SCHEMA)));
	parts = split_batch(batch, number_of_slots(), &count);
	if (count == 0)
		return result;
	SPI_connect();
	if (send_parts(parts, count, -1) == NULL)
		add_result(&result);
	else
		send_one_by_one(parts, count, &result);
	SPI_finish();
	return result;
}

/*
 * ingest(payload json, account text DEFAULT NULL) returns ingest_result
 *
 * As ingest of postalytics_status, but stores the events in their slots.  Errors: those
 * of ingest; 0A000 in a transaction block; 55000 if the cluster is not complete; 54000
 * for more rejects than max_rejects; 08006 if a slot cannot be reached.  After an error
 * of a slot, the events of all other slots are stored.
 */
Datum
postalytics_front_ingest(PG_FUNCTION_ARGS)
{
	EventAccount account = account_argument(fcinfo);
	IngestResult result = {0};
	SavedUser	caller;
	EventBatch *batch;
	text	   *payload;

	check_no_block("ingest");
	if (PG_ARGISNULL(0))
		return form_result(fcinfo, result);
	payload = PG_GETARG_TEXT_PP(0);
	caller = switch_to_owner();
	batch = event_batch_create(CurrentMemoryContext, call_create(CurrentMemoryContext, false));
	event_batch_check_size(batch, VARSIZE_ANY_EXHDR(payload));
	event_batch_read(batch, VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload), &account);
	result = send_batch(batch);
	MemoryContextDelete(batch->context);
	restore_user(caller);
	return form_result(fcinfo, result);
}

static void
send_rows(EventBatch *batch, void **stored, bool is_last)
{
	(void) send_batch(batch);
}

/*
 * inbox_insert(), called by the statement triggers of inbox: see inbox_statement.  A
 * statement with many rows is sent in several calls.  Error 0A000 in a transaction
 * block.
 */
Datum
postalytics_front_inbox(PG_FUNCTION_ARGS)
{
	check_no_block("INSERT into inbox");
	inbox_statement(fcinfo, send_rows);
	return PointerGetDatum(NULL);
}

/* ---- retry_rejects ---- */

/* Number of rejects that are read at once. */
#define RETRY_CHUNK		100

/*
 * Key of the advisory lock that serializes calls, because rejects that another call is
 * reading cannot be skipped through a foreign table.  The bytes are "postalyt".
 */
#define RETRY_LOCK		INT64CONST(0x706f7374616c7974)

/* Parameters of rejects_query. */
enum
{
	REJECTS_AFTER, REJECTS_ALL, REJECTS_ACCOUNTS, N_REJECTS
};

static const char rejects_query[] =
"SELECT r.reject_id, r.account, r.payload, r.reason"
" FROM postalytics.rejects AS r"
" WHERE r.reject_id > $1"
"   AND ($2 OR r.account = ANY ($3))"
" ORDER BY r.reject_id"
" LIMIT " CppAsString2(RETRY_CHUNK);

/* Run a command for a reject; reason is NULL if the command does not have it. */
static void
change_reject(const char *command, int64 reject_id, const char *reason)
{
	Oid			types[] = {INT8OID, TEXTOID};
	Datum		values[] = {Int64GetDatum(reject_id), reason == NULL ? (Datum) 0 : CStringGetTextDatum(reason)};

	if (SPI_execute_with_args(command, reason == NULL ? 1 : 2, types, values, NULL, false, 0) < 0)
		elog(ERROR, "could not execute query: %s", command);
}

/*
 * Read a reject again, and send its events to their slots if any is accepted or ignored.
 * Otherwise, the reject stays where it is.  Adds to the result.
 */
static void
retry_reject(HeapTuple row, TupleDesc tupdesc, bool is_manager, IngestResult *result)
{
	bool		isnull;
	int64		id = DatumGetInt64(SPI_getbinval(row, tupdesc, 1, &isnull));
	char	   *account = SPI_getvalue(row, tupdesc, 2);
	text	   *payload = DatumGetTextPP(SPI_getbinval(row, tupdesc, 3, &isnull));
	EventAccount event_account = {account, account[0] != '\0'};
	EventBatch *batch = event_batch_create(CurrentMemoryContext, call_create(CurrentMemoryContext, false));
	EventSource *source;

	if (is_manager)
		batch->settings.max_campaigns = INT_MAX;
	source = event_batch_read(batch, VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload), &event_account);
	if (source->accepted == 0 && source->rejected > 0)
	{
		const char *reason = batch->rejects[0].reason;

		result->rejected += source->rejected;
		if (strcmp(reason, SPI_getvalue(row, tupdesc, 4)) != 0)
			change_reject("UPDATE postalytics.rejects AS r SET reason = $2 WHERE r.reject_id = $1", id, reason);
	}
	else
	{
		IngestResult sent = send_batch(batch);

		result->inserted += sent.inserted;
		result->duplicates += sent.duplicates;
		result->rejected += sent.rejected;
		change_reject("DELETE FROM postalytics.rejects AS r WHERE r.reject_id = $1", id, NULL);
	}
	MemoryContextDelete(batch->context);
}

/*
 * retry_rejects() returns ingest_result
 *
 * As retry_rejects of postalytics_status, for the rejects of all slots.  The events that
 * are accepted now can belong to other slots than the reject.  Calls run one after the
 * other.  Locks: an advisory lock until the transaction ends.  Errors: those of
 * retry_rejects and of ingest at the front, such as 54000 for a reject with more than
 * max_rejects rejected events of which some are accepted now.
 */
Datum
postalytics_front_retry_rejects(PG_FUNCTION_ARGS)
{
	bool		is_manager = may_manage();
	AllowedAccounts bound = {.all = is_manager};
	Oid			types[N_REJECTS] = {[REJECTS_AFTER] = INT8OID,[REJECTS_ALL] = BOOLOID,[REJECTS_ACCOUNTS] = TEXTARRAYOID};
	Datum		values[N_REJECTS];
	IngestResult result = {0};
	SavedUser	caller;
	int			count;

	if (!bound.all)
		ingest_accounts(&bound);
	check_no_block("retry_rejects");
	(void) DirectFunctionCall1(pg_advisory_xact_lock_int8, Int64GetDatum(RETRY_LOCK));
	values[REJECTS_AFTER] = Int64GetDatum(-1);
	values[REJECTS_ALL] = BoolGetDatum(bound.all);
	values[REJECTS_ACCOUNTS] = account_array(&bound);
	caller = switch_to_owner();
	do
	{
		SPITupleTable *rows;

		SPI_connect();
		if (SPI_execute_with_args(rejects_query, N_REJECTS, types, values, NULL, false, 0) < 0)
			elog(ERROR, "could not execute query: %s", rejects_query);
		rows = SPI_tuptable;
		count = SPI_processed;
		for (int i = 0; i < count; i++)
		{
			bool		isnull;

			values[REJECTS_AFTER] = SPI_getbinval(rows->vals[i], rows->tupdesc, 1, &isnull);
			retry_reject(rows->vals[i], rows->tupdesc, is_manager, &result);
		}
		SPI_finish();
	} while (count == RETRY_CHUNK);
	restore_user(caller);
	return form_result(fcinfo, result);
}
