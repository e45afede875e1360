/*
 * library.c
 *		What check_setup and metrics ask about the loaded library.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/compat.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "rights/settings.h"
#include "sync/wake.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(postalytics_library_version);
PG_FUNCTION_INFO_V1(postalytics_is_preloaded);
PG_FUNCTION_INFO_V1(postalytics_worker_expected);

/* library_version() returns text */
Datum
postalytics_library_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(POSTALYTICS_VERSION));
}

/* is_preloaded() returns boolean */
Datum
postalytics_is_preloaded(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(wake_shared != NULL);
}

/*
 * worker_expected() returns boolean
 *
 * True if the library is preloaded, the server is not a standby, and parameter
 * worker_databases allows a background worker for this database.
 */
Datum
postalytics_worker_expected(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(wake_shared != NULL && !RecoveryInProgress() &&
				   worker_is_allowed(get_database_name(MyDatabaseId)));
}
