/*
 * library_version.c
 *		library_version: the version of the loaded library, for check_setup.
 */
#include "postgres.h"

#include "base/compat.h"
#include "fmgr.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(postalytics_library_version);

/* library_version() returns text */
Datum
postalytics_library_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(POSTALYTICS_VERSION));
}
