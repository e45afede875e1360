/*
 * ingest.c
 *		ingest: stores the events of a JSON value, each event once.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/extension.h"
#include "catalog/pg_type.h"
#include "feed/reader.h"
#include "fmgr.h"
#include "ingest/ingest.h"
#include "ingest/progress.h"
#include "ingest/store.h"
#include "rights/binding.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(postalytics_ingest);
PG_FUNCTION_INFO_V1(postalytics_ingest_parts);

/*
 * Return the account of the events of a call of ingest, whose second argument is the
 * account.  Errors: 42501 and 22001 as for ingest.
 */
EventAccount
account_argument(FunctionCallInfo fcinfo)
{
	AllowedAccounts bound;
	EventAccount account;

	ingest_accounts(&bound);
	account = account_of_call(&bound, PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (strlen(account.name) > field_info[ACCOUNT].max_length)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("account is longer than %u bytes", field_info[ACCOUNT].max_length)));
	return account;
}

/*
 * ingest(payload json, account text DEFAULT NULL) returns ingest_result
 *
 * payload is an event, an array of events, or an object with either of them
 * under data, events or items.  NULL means no events.  account is the account
 * of the events.  If account is NULL or '', the events belong to the only
 * account to which the current user is bound.  For a user who may ingest for
 * all accounts, '' means that no account is specified.
 *
 * Locks: ROW EXCLUSIVE on the tables that are written.  Rows of
 * production_errors, events, pieces and campaigns are locked in this order of
 * the tables, and in key order within each table.  Errors: 42501 if the
 * current user is not bound to the account, or is bound to several accounts
 * and specifies none; 22001 for an account of more than 255 bytes; 54000 for a
 * payload larger than setting max_call_size; 54001 for JSON that is nested too
 * deeply; 25006 in a read-only transaction; 40001 as for ensure_months and
 * direct_insert.
 */
Datum
postalytics_ingest(PG_FUNCTION_ARGS)
{
	text	   *payload;
	EventAccount event_account = account_argument(fcinfo);
	SavedUser	caller;
	EventBatch *batch;
	IngestResult result = {0};
	bool		show_progress;

	if (PG_ARGISNULL(0))
		return form_result(fcinfo, result);
	payload = PG_GETARG_TEXT_PP(0);

	caller = switch_to_owner();
	batch = event_batch_create(CurrentMemoryContext, call_create(CurrentMemoryContext, false));
	event_batch_check_size(batch, VARSIZE_ANY_EXHDR(payload));
	show_progress = progress_is_wanted(VARSIZE_ANY_EXHDR(payload));
	if (show_progress)
		progress_begin(VARSIZE_ANY_EXHDR(payload), 0);
	batch->progress = show_progress ? progress_bytes_read : NULL;
	event_batch_read(batch, VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload), &event_account);
	result = store_batch(batch, show_progress ? VARSIZE_ANY_EXHDR(payload) : 0);
	MemoryContextDelete(batch->context);
	if (show_progress)
		progress_end();
	restore_user(caller);
	return form_result(fcinfo, result);
}

/*
 * ingest_parts(payloads payloads, accounts text[], fixed boolean[]) returns ingest_result
 *
 * Ingests several payloads as a single call, for the front of a cluster.  The caller
 * must pass arrays of the same length without NULLs.  If fixed is true, the account takes
 * precedence over accounts in the payload, even if it is ''.  Strict.  Only the owner of
 * the extension may call this: the front has checked the accounts and the size of the
 * call.  Locks: those of ingest.  Errors: 22P02 for a payload that is not JSON, and 54001,
 * 25006 and 40001 as for ingest.
 */
Datum
postalytics_ingest_parts(PG_FUNCTION_ARGS)
{
	Datum	   *payloads;
	Datum	   *accounts;
	Datum	   *fixed;
	int			count;
	EventBatch *batch = event_batch_create(CurrentMemoryContext, call_create(CurrentMemoryContext, false));
	IngestResult result;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), TEXTOID, -1, false, TYPALIGN_INT, &payloads, NULL, &count);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &accounts, NULL, &count);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), BOOLOID, 1, true, TYPALIGN_CHAR, &fixed, NULL, &count);
	for (int i = 0; i < count; i++)
	{
		Datum		json = DirectFunctionCall1(json_in, CStringGetDatum(TextDatumGetCString(payloads[i])));
		text	   *payload = DatumGetTextPP(json);
		EventAccount account = {TextDatumGetCString(accounts[i]), DatumGetBool(fixed[i])};

		event_batch_read(batch, VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload), &account);
	}
	result = store_batch(batch, 0);
	MemoryContextDelete(batch->context);
	return form_result(fcinfo, result);
}
