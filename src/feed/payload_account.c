/*
 * payload_account.c
 *		Reads the account from a payload, for diagnostics only.
 *
 * This account does not determine the account of the event.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "feed/reader.h"
#include "fmgr.h"

PG_FUNCTION_INFO_V1(postalytics_payload_account);

/*
 * payload_account(payload json) returns text
 *
 * Returns the account that a payload names under one of the built-in spellings,
 * or NULL if the payload names none.  Strict.
 */
Datum
postalytics_payload_account(PG_FUNCTION_ARGS)
{
	text	   *payload = PG_GETARG_TEXT_PP(0);
	EventSource source = source_of_event(VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload));
	Span		details[N_ALL_FIELDS - N_FIELDS] = {0};
	EventRecord record;
	Datum		account;

	if (!event_read_details(&record, &source, details))
		PG_RETURN_NULL();
	account = span_text(&source, details[PAYLOAD_ACCOUNT - N_FIELDS]);
	if (account == (Datum) 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(account);
}
