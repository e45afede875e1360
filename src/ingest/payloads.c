/*
 * payloads.c
 *		payloads: an array of JSON texts that is cheap to send to a slot.
 *
 * The values are arrays of text.  PL/Proxy splits them like any array, and sends them in
 * text form.  The text form of an array of json escapes each quote, which makes a payload
 * much more expensive to send and to read.  The text form of payloads needs no escaping:
 * each element is preceded by its length in bytes and a colon.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(postalytics_payloads_in);
PG_FUNCTION_INFO_V1(postalytics_payloads_out);

/*
 * Read the length before an element, and move *place behind the colon.  Error 22P02 if
 * there is no length, or the text is shorter.
 */
static int
read_length(const char **place, const char *end)
{
	char	   *colon;
	long		length = strtol(*place, &colon, 10);

	if (colon == *place || *colon != ':' || length < 0 || length > end - colon - 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid input syntax for type %s", "payloads")));
	*place = colon + 1;
	return length;
}

/*
 * payloads_in(cstring) returns payloads
 *
 * Reads the text form; '' is an empty array.  Strict.  Error 22P02 for anything else.
 */
Datum
postalytics_payloads_in(PG_FUNCTION_ARGS)
{
	const char *place = PG_GETARG_CSTRING(0);
	const char *end = place + strlen(place);
	ArrayBuildState *array = initArrayResult(TEXTOID, CurrentMemoryContext, false);

	while (place < end)
	{
		int			length = read_length(&place, end);
		text	   *element = cstring_to_text_with_len(place, length);

		array = accumArrayResult(array, PointerGetDatum(element), false, TEXTOID, CurrentMemoryContext);
		pfree(element);
		place += length;
	}
	PG_RETURN_DATUM(makeArrayResult(array, CurrentMemoryContext));
}

/* payloads_out(payloads) returns cstring: writes the text form.  Strict. */
Datum
postalytics_payloads_out(PG_FUNCTION_ARGS)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(0);
	StringInfoData out;
	Datum	   *elements;
	int			count;

	initStringInfo(&out);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, NULL, &count);
	for (int i = 0; i < count; i++)
	{
		text	   *element = DatumGetTextPP(elements[i]);
		int			length = VARSIZE_ANY_EXHDR(element);

		appendStringInfo(&out, "%d:", length);
		appendBinaryStringInfo(&out, VARDATA_ANY(element), length);
	}
	PG_RETURN_CSTRING(out.data);
}
