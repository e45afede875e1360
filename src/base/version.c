/*
 * version.c
 *		The version of the library, and the number of its interface.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/extension.h"
#include "fmgr.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(postalytics_interface_1);
PG_FUNCTION_INFO_V1(postalytics_library_version);
PG_FUNCTION_INFO_V1(postalytics_require_library);

/* interface() returns integer; the symbol ends with the number, see check_interface */
Datum
postalytics_interface_1(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(EXTENSION_INTERFACE);
}

/* library_version() returns text */
Datum
postalytics_library_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(POSTALYTICS_VERSION));
}

/*
 * Convert a version such as "1.0.0" to a number that sorts in version order.
 * Returns -1 if the text has another form.
 */
static int64
version_number(const char *version)
{
	unsigned int major;
	unsigned int minor;
	unsigned int patch;
	char		rest;

	if (sscanf(version, "%5u.%5u.%5u%c", &major, &minor, &patch, &rest) != 3)
		return -1;
	return ((int64) major * 100000 + minor) * 100000 + patch;
}

/*
 * require_library(version text)
 *
 * Does nothing if the library has at least this version.  Each install and update
 * script calls this first, because a server or session that loaded the library
 * before its file was replaced would run the script's functions with the old one.
 * Strict.
 * Errors: 55000 if the library is older, 22023 if the version is not of the form
 * "1.0.0".
 */
Datum
postalytics_require_library(PG_FUNCTION_ARGS)
{
	char	   *version = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int64		required = version_number(version);

	if (required < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid version: \"%s\"", version)));
	if (version_number(POSTALYTICS_VERSION) < required)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("library version %s is too old for version %s of extension \"%s\"",
						POSTALYTICS_VERSION, version, EXTENSION_NAME),
				 errhint(RELOAD_HINT)));
	PG_RETURN_VOID();
}
