/*
 * payloads.c
 *		payloads: an array of JSON texts that is cheap to send to a slot.
 *
 * The values are arrays of text.  PL/Proxy splits them as it splits any array, but sends
 * them as text, and the text form of an array has a backslash before each quote.  Writing
 * and reading these took more time at the front than anything else.  The text form of
 * payloads is, for each element, its length, a colon and the element.
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

/* payloads_in(cstring) returns payloads; strict */
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

/* payloads_out(payloads) returns cstring; strict */
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

		enlargeStringInfo(&out, length + 16);
		appendStringInfo(&out, "%d:", length);
		appendBinaryStringInfo(&out, VARDATA_ANY(element), length);
	}
	PG_RETURN_CSTRING(out.data);
}
