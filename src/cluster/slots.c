/*
 * slots.c
 *		Runs queries on the slots of a cluster, through PL/Proxy.
 *
 * The front of a cluster holds no events.  Each of its functions checks the privileges
 * of the current user, switches to the owner of the extension, and runs a query that
 * calls a PL/Proxy function (proxy.sql).  A slot commits such a call at once, so the
 * front cannot take it back.
 *
 * PL/Proxy checks its query_timeout only when a connection receives data, so a call to a
 * slot that hangs would never time out.  After an error with SQLSTATE 57014, PL/Proxy
 * sends a cancel request to each slot, and libpq waits for its result without a limit.
 * Therefore, a call is limited with the server's LOCK_TIMEOUT, which raises 55P03.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "base/cache.h"
#include "base/compat.h"
#include "base/extension.h"
#include "cluster/slots.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timeout.h"

int			setting_slot_timeout;
int			setting_fetch_timeout;
int			setting_command_timeout;

/* Define the configuration parameters of the front. */
void
slots_init(void)
{
	DefineCustomIntVariable("postalytics_status.slot_timeout",
							"Sets how long the front of a cluster waits for a slot to respond.",
							"Other parameters limit the calls of workers and managers.",
							&setting_slot_timeout, 60000, 100, INT_MAX, PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("postalytics_status.fetch_timeout",
							"Sets how long fetch, ack, nack and next_due at the front of a cluster wait for a slot to respond.",
							NULL,
							&setting_fetch_timeout, 5000, 100, INT_MAX, PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("postalytics_status.command_timeout",
							"Sets how long functions for managers at the front of a cluster wait for a slot to respond.",
							NULL,
							&setting_command_timeout, 3600000, 100, INT_MAX, PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
}

/* ---- the slots ---- */

/* Attribute numbers of slots, in the order of slots.sql. */
enum
{
	ATTR_SLOT = 1, ATTR_SLOTS, ATTR_CONNECTION
};

static int	known_slots;		/* number of rows */
static int	all_slots;			/* number of slots in the cluster */
static const char *connections[MAX_SLOTS];

static void
begin_slots(void)
{
	known_slots = 0;
	all_slots = 0;
}

static void
add_slot(TupleTableSlot *row)
{
	bool		isnull;
	int			number = DatumGetInt32(slot_getattr(row, ATTR_SLOT, &isnull));

	known_slots++;
	all_slots = DatumGetInt32(slot_getattr(row, ATTR_SLOTS, &isnull));
	if (number >= 0 && number < MAX_SLOTS)
		connections[number] = TextDatumGetCString(slot_getattr(row, ATTR_CONNECTION, &isnull));
}

static TableCache slots_cache = {
	.table = "slots",
	.begin = begin_slots,
	.add = add_slot
};

/* Return the number of slots.  Error 55000 if some have not been added yet. */
int
number_of_slots(void)
{
	refresh_cache(&slots_cache);
	if (known_slots == 0 || known_slots < all_slots)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cluster is not complete"),
				 known_slots == 0 ? errdetail("It has no slots.") :
				 errdetail("%d of %d slots have been added.", known_slots, all_slots),
				 errhint("Add the other slots with %s.add_slot.", EXTENSION_SCHEMA)));
	return all_slots;
}

/* Return the number of a slot and where it is, for messages. */
const char *
slot_name(int slot)
{
	refresh_cache(&slots_cache);
	return psprintf("%d (%s)", slot, connections[slot]);
}

/* ---- calls ---- */

/*
 * Raise error 0A000 in a transaction block, because ROLLBACK would not undo what a
 * function has done on the slots.  A call inside a function is not detected, unless it is
 * in a subtransaction.
 */
void
check_no_block(const char *function)
{
	if (IsTransactionBlock() || IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot run inside a transaction block at the front of a cluster", function),
				 errdetail("The slots commit each call at once, so ROLLBACK could not undo it."),
				 errhint("Call it in a statement of its own.")));
}

/*
 * Change an error that was raised during a call into one for the caller: remove what
 * PL/Proxy puts before the message of a slot, and give a failed connection and a
 * timeout the SQLSTATE 08006.  PL/Proxy reports a failed connection as an internal error
 * whose message contains "[database] PQfunction: ".
 */
static void
translate_error(ErrorData *error, bool timed_out)
{
	static const char prefix[] = "REMOTE ERROR: ";
	const char *message = error->message == NULL ? NULL : strstr(error->message, prefix);

	if (message != NULL)
		error->message = pstrdup(message + strlen(prefix));
	else if (timed_out)
	{
		error->sqlerrcode = ERRCODE_CONNECTION_FAILURE;
		error->message = "slot did not respond within the time limit";
		error->hint = "The slot may be down or overloaded. Query postalytics.cluster_health to see the state of each slot.";
	}
	else if (error->sqlerrcode == ERRCODE_INTERNAL_ERROR && error->message != NULL &&
			 (message = strstr(error->message, "] PQ")) != NULL)
	{
		error->sqlerrcode = ERRCODE_CONNECTION_FAILURE;
		error->message = psprintf("could not reach a slot: %s", message + strlen("] "));
		error->hint = "Query postalytics.cluster_health to see the state of each slot.";
	}
	error->context = NULL;
}

/* Run a query under a time limit, in milliseconds. */
static void
run_with_limit(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, int timeout)
{
	int			level = NewGUCNestLevel();

	/*
	 * The query runs as the owner, so it must not find objects of the caller.
	 * Parameters are sent as text, and PL/Proxy reports stale connections.
	 */
	set_parameter("search_path", "pg_catalog, pg_temp");
	set_parameter("datestyle", "ISO");
	set_parameter("intervalstyle", "postgres");
	set_parameter("client_min_messages", "warning");
	enable_timeout_after(LOCK_TIMEOUT, timeout);
	if (SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0) < 0)
		elog(ERROR, "could not execute query: %s", sql);
	disable_timeout(LOCK_TIMEOUT, true);
	if (get_timeout_indicator(LOCK_TIMEOUT, true))
		QueryCancelPending = false; /* it fired after the last result */
	AtEOXact_GUC(true, level);
}

/*
 * Run a query that calls a PL/Proxy function.  The caller has opened an SPI connection,
 * which receives the result.  timeout is in milliseconds.  Errors: 08006 if a slot
 * cannot be reached or does not answer in time, and those of the slots.
 */
void
slots_execute(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, int timeout)
{
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		run_with_limit(sql, nargs, types, values, nulls, timeout);
	}
	PG_CATCH();
	{
		ErrorData  *error;
		bool		timed_out = !get_timeout_active(LOCK_TIMEOUT) && geterrcode() == ERRCODE_LOCK_NOT_AVAILABLE;

		disable_timeout(LOCK_TIMEOUT, false);
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		translate_error(error, timed_out);
		ReThrowError(error);
	}
	PG_END_TRY();
}

/*
 * As slots_execute, but in a subtransaction, and an error is returned instead of
 * raised, allocated until the transaction ends.  Returns NULL if there was none.  A
 * cancel request of the user is raised.
 */
ErrorData *
slots_try(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, int timeout)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		slots_execute(sql, nargs, types, values, nulls, timeout);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(TopTransactionContext);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	if (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	return error;
}
