/*
 * exclusive.c
 *		Pauses the background worker of a database during a command that needs
 *		exclusive use of the database, such as DROP DATABASE.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include <signal.h>

#include "base/compat.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "sync/wake.h"
#include "tcop/utility.h"
#include "worker/exclusive.h"
#include "worker/process.h"

/* How often to check whether the worker has exited, in milliseconds. */
#define POLL_INTERVAL	10

static ProcessUtility_hook_type next_utility;

/* Return the name of the database that a command uses exclusively, or NULL. */
static char *
database_for_exclusive_use(Node *command)
{
	ListCell   *cell;

	switch (nodeTag(command))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) command)->dbname;
		case T_RenameStmt:
			return ((RenameStmt *) command)->renameType == OBJECT_DATABASE ?
				((RenameStmt *) command)->subname : NULL;
		case T_CreatedbStmt:
			foreach(cell, ((CreatedbStmt *) command)->options)
			{
				DefElem    *option = lfirst(cell);

				if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
					return defGetString(option);
			}
			return NULL;
		case T_AlterDatabaseStmt:
			foreach(cell, ((AlterDatabaseStmt *) command)->options)
			{
				if (strcmp(((DefElem *) lfirst(cell))->defname, "tablespace") == 0)
					return ((AlterDatabaseStmt *) command)->dbname;
			}
			return NULL;
		default:
			return NULL;
	}
}

/*
 * Stop the worker of a database until resume_worker is called.  Waits until the
 * worker has exited.
 */
static void
pause_worker(Oid database)
{
	for (;;)
	{
		WorkerSlot *slot;
		int			pid;

		LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
		slot = wake_find_slot(database);
		if (slot != NULL)
			slot->pauser = MyProcPid;
		pid = slot == NULL ? 0 : slot->pid;
		LWLockRelease(wake_shared->lock);
		if (!is_alive(pid))
			break;
		kill(pid, SIGTERM);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 POLL_INTERVAL, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Allow the launcher to start the worker of a database again. */
static void
resume_worker(Oid database)
{
	WorkerSlot *slot;

	LWLockAcquire(wake_shared->lock, LW_EXCLUSIVE);
	slot = wake_find_slot(database);
	if (slot != NULL && slot->pauser == MyProcPid)
		slot->pauser = 0;
	wake_launcher(database);
	LWLockRelease(wake_shared->lock);
}

/*
 * Run a utility command.  If it uses a database exclusively, the worker of the
 * database is paused during the command.
 */
static void
exclusive_process_utility(PlannedStmt *statement, const char *query, bool read_only,
						  ProcessUtilityContext context, ParamListInfo parameters,
						  QueryEnvironment *environment, DestReceiver *receiver,
						  QueryCompletion *completion)
{
	char	   *name = database_for_exclusive_use(statement->utilityStmt);
	Oid			database = name == NULL ? InvalidOid : get_database_oid(name, true);

	/*
	 * If the user does not own the database, the command fails, or it copies
	 * a template, which has no worker.
	 */
	if (!OidIsValid(database) || !compat_owns_database(database, GetUserId()))
	{
		next_utility(statement, query, read_only, context, parameters, environment, receiver, completion);
		return;
	}
	PG_TRY();
	{
		pause_worker(database);
		next_utility(statement, query, read_only, context, parameters, environment, receiver, completion);
	}
	PG_FINALLY();
	{
		resume_worker(database);
	}
	PG_END_TRY();
	if (IsA(statement->utilityStmt, CreatedbStmt))
		wake_want_worker(get_database_oid(((CreatedbStmt *) statement->utilityStmt)->dbname, true));
}

/* Install the hook, when the library is preloaded. */
void
exclusive_init(void)
{
	next_utility = ProcessUtility_hook ? ProcessUtility_hook : standard_ProcessUtility;
	ProcessUtility_hook = exclusive_process_utility;
}
