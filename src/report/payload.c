/*
 * payload.c
 *		What a stored payload says of an address, for the reports.
 */
#include "postgres.h"

#include "base/compat.h"
#include "feed/reader.h"
#include "funcapi.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(postalytics_payload_details);

/* The fields that only reports read, up to STATE. */
#define N_ADDRESS_FIELDS	(STATE - N_FIELDS + 1)

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
 *		address2 text, city text, state text, zip text)
 *
 * Returns the fields of a payload that only reports read, and its ZIP code.  A
 * field is NULL if the payload lacks it or the database cannot hold it.
 * Strict.
 */
Datum
postalytics_payload_details(PG_FUNCTION_ARGS)
{
	text	   *payload = PG_GETARG_TEXT_PP(0);
	EventSource source = {.json = VARDATA_ANY(payload),.length = VARSIZE_ANY_EXHDR(payload)};
	Span		details[N_ALL_FIELDS - N_FIELDS] = {0};
	EventRecord record;
	TupleDesc	tupdesc;
	Datum		values[N_ADDRESS_FIELDS + 1];
	bool		nulls[N_ADDRESS_FIELDS + 1];

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (!event_read_details(&record, &source, details))
		PG_RETURN_NULL();
	for (int i = 0; i < N_ADDRESS_FIELDS; i++)
	{
		values[i] = span_text(&source, details[i]);
		nulls[i] = values[i] == (Datum) 0;
	}
	if (!nulls[ADDRESS_UPDATED - N_FIELDS])
		values[ADDRESS_UPDATED - N_FIELDS] =
			BoolGetDatum(means_true(DatumGetTextPP(values[ADDRESS_UPDATED - N_FIELDS])));
	values[N_ADDRESS_FIELDS] = event_field_text(&record, ZIP);
	nulls[N_ADDRESS_FIELDS] = values[N_ADDRESS_FIELDS] == (Datum) 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}
