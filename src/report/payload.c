/*
 * payload.c
 *		Extracts address details from a stored payload, for the reports.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "feed/reader.h"
#include "funcapi.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(postalytics_payload_details);

/* The columns that payload_details returns, in order. */
static const Field columns[] = {
	ERROR_CODE, ERROR_DESCRIPTION, ADDRESS_UPDATED, ADDRESS, ADDRESS2, CITY, STATE, ZIP, PHONE
};

/* True if a value means true, in one of the spellings of the feed. */
static bool
means_true(const text *value)
{
	static const char *const spellings[] = {"true", "1", "yes"};

	for (int i = 0; i < lengthof(spellings); i++)
		if (VARSIZE_ANY_EXHDR(value) == strlen(spellings[i]) &&
			pg_strncasecmp(VARDATA_ANY(value), spellings[i], strlen(spellings[i])) == 0)
			return true;
	return false;
}

/*
 * payload_details(payload json) returns (error_code text,
 *		error_description text, address_updated boolean, address text,
 *		address2 text, city text, state text, zip text, phone text)
 *
 * Returns fields of a payload.  A field is NULL if the payload lacks it or the
 * database cannot hold it.  Strict.
 */
Datum
postalytics_payload_details(PG_FUNCTION_ARGS)
{
	text	   *payload = PG_GETARG_TEXT_PP(0);
	EventSource source = source_of_event(VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload));
	Span		details[N_ALL_FIELDS - N_FIELDS] = {0};
	EventRecord record;
	TupleDesc	tupdesc;
	Datum		values[lengthof(columns)];
	bool		nulls[lengthof(columns)];

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (!event_read_details(&record, &source, details))
		PG_RETURN_NULL();
	for (int i = 0; i < lengthof(columns); i++)
	{
		values[i] = columns[i] < N_FIELDS ? event_field_text(&record, columns[i]) :
			span_text(&source, details[columns[i] - N_FIELDS]);
		nulls[i] = values[i] == (Datum) 0;
		if (columns[i] == ADDRESS_UPDATED && !nulls[i])
			values[i] = BoolGetDatum(means_true(DatumGetTextPP(values[i])));
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}
