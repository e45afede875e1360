/*
 * postalytics_status.c
 *		Contains only the library's magic block and _PG_init.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/extension.h"
#include "cluster/configuration.h"
#include "cluster/slots.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "rights/settings.h"
#include "sync/wake.h"
#include "worker/exclusive.h"
#include "worker/launcher.h"

COMPAT_MODULE_MAGIC(EXTENSION_NAME, POSTALYTICS_VERSION);

PGDLLEXPORT void _PG_init(void);

/*
 * Define the configuration parameters, register a callback and, if the library is
 * preloaded, prepare the background worker.
 */
void
_PG_init(void)
{
	slots_init();
	configuration_init();
	settings_init();
	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	wake_init();
	launcher_init();
	exclusive_init();
}
