/*
 * preload.c
 *		Reports whether the library is preloaded, and whether a background worker is
 *		expected; used by check_setup and metrics.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/compat.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "rights/settings.h"
#include "sync/wake.h"

PG_FUNCTION_INFO_V1(postalytics_is_preloaded);
PG_FUNCTION_INFO_V1(postalytics_worker_expected);

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
