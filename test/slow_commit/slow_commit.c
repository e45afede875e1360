/*
 * slow_commit.c
 *		A commit that stops where others see it but are not told of it yet: its
 *		invalidations are still to be sent, its locks to be released.  For
 *		test/t/commit.pl.
 *
 * slow_commit.file: the commit stops there as long as there is such a file.
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
	DefineCustomStringVariable("slow_commit.file", "A commit stops as long as there is this file.",
							   NULL, &file, "", PGC_USERSET, 0, NULL, NULL, NULL);
	RegisterXactCallback(stop, NULL);
}
