/*
 * disable.c
 *		disable_sync().
 *
 * A worker may disable its own sync, for example when the receiver answers that it is
 * gone for good.  Only managers may enable it again.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/query.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "rights/binding.h"
#include "sync/delivery.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(postalytics_disable_sync);

static SqlQuery disable_query = {
	.sql = "UPDATE postalytics.syncs AS s SET enabled = false WHERE s.name = $1",
	.result = SPI_OK_UPDATE,
	.nparameters = 1,
	.types = {TEXTOID}
};

/*
 * disable_sync(name text) returns void: set enabled of a sync to false.  Locks: the row
 * of the sync.  Errors: 22004 if name is NULL, 42501 unless the current user may manage
 * syncs or use this one, 42704 if the sync does not exist.
 */
Datum
postalytics_disable_sync(PG_FUNCTION_ARGS)
{
	Datum		name = required_argument(fcinfo, 0, "name");
	const char *sync = TextDatumGetCString(name);
	SavedUser	caller;

	(void) granted_sync(sync, may_manage() || may_use_sync(sync));
	caller = switch_to_owner();
	SPI_connect();
	query_run(&disable_query, &name, NULL);
	SPI_finish();
	restore_user(caller);
	PG_RETURN_VOID();
}
