/*
 * bar.c
 *		Draws a bar as text, for reports that are shown in a terminal.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include <math.h>

#include "base/compat.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(postalytics_bar);

#define MAX_WIDTH	1000

/*
 * bar(value, whole, width) returns text
 *
 * Draws value as a share of whole, in at most width characters.  The bar
 * consists of eighths of a block if both the database and the client use
 * UTF-8, and otherwise of '#'.  It is empty if whole is not positive.  Strict.
 * Error 22023 if width is not between 1 and 1000.
 */
Datum
postalytics_bar(PG_FUNCTION_ARGS)
{
	float8		whole = PG_GETARG_FLOAT8(1);
	float8		share = whole > 0 ? PG_GETARG_FLOAT8(0) / whole : 0;
	int			width = PG_GETARG_INT32(2);
	bool		utf8 = GetDatabaseEncoding() == PG_UTF8 && pg_get_client_encoding() == PG_UTF8;
	int			steps = utf8 ? 8 : 1;	/* per character */
	int			length;
	StringInfoData bar;

	if (width < 1 || width > MAX_WIDTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("width must be between 1 and %d", MAX_WIDTH)));
	initStringInfo(&bar);
	length = isnan(share) ? 0 : (int) rint(Min(Max(share, 0), 1) * width * steps);
	for (int i = 0; i < length / steps; i++)
		appendStringInfoString(&bar, utf8 ? "\xE2\x96\x88" : "#");
	/* U+2589 (seven eighths) to U+258F (one eighth) */
	if (length % steps != 0)
		appendStringInfo(&bar, "\xE2\x96%c", 0x90 - length % steps);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(bar.data, bar.len));
}
