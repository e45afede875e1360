/*
 * slow_commit.c
 *		Makes a commit stop where other sessions see its changes, but before it
 *		sends its invalidations and releases its locks.  Used by
 *		test/t/commit.pl.
 *
 * The commit waits there while the file that slow_commit.file names exists.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static char *file = NULL;

static void
stop(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT || file[0] == '\0')
		return;
	while (access(file, F_OK) == 0)
		pg_usleep(10000L);
}

void
_PG_init(void)
{
	DefineCustomStringVariable("slow_commit.file", "Sets the file whose existence makes a commit wait.",
							   NULL, &file, "", PGC_USERSET, 0, NULL, NULL, NULL);
	RegisterXactCallback(stop, NULL);
}
