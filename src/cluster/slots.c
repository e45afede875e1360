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
#include "access/xlog.h"
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
#include "utils/timestamp.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(postalytics_check_no_block);
PG_FUNCTION_INFO_V1(postalytics_id_of_front);
PG_FUNCTION_INFO_V1(postalytics_is_complete);

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
	ATTR_SLOT = 1, ATTR_SLOTS, ATTR_CONNECTION, ATTR_FRONT
};

static pg_uuid_t own_id;		/* identifies this front */
static int	known_slots;		/* slots that were added to this front */
static int	copied_slots;		/* slots that were added to another one */
static int	all_slots;			/* number of slots in the cluster */
static const char *connections[MAX_SLOTS];

/* Attribute number of table front. */
enum
{
	ATTR_ID = 1
};

static void
begin_front(void)
{
	memset(&own_id, 0, sizeof(own_id));
}

/*
 * Compute the id of this front from the stored one, which is new after a restore, the OID
 * of the database, which differs in a copy of it, and the system identifier, which changes
 * with pg_upgrade.  A standby and a server that is recovered from a base backup keep them.
 */
static void
add_front(TupleTableSlot *row)
{
	bool		isnull;
	uint64		system = GetSystemIdentifier();
	unsigned char *identifier = (unsigned char *) &system;
	unsigned char *database = (unsigned char *) &MyDatabaseId;

	own_id = *DatumGetUUIDP(slot_getattr(row, ATTR_ID, &isnull));
	for (int i = 0; i < 8; i++)
		own_id.data[i] ^= identifier[i];
	for (int i = 0; i < 4; i++)
		own_id.data[8 + i] ^= database[i];
}

static TableCache front_cache = {
	.table = "front",
	.begin = begin_front,
	.add = add_front
};

static void
begin_slots(void)
{
	known_slots = 0;
	copied_slots = 0;
	all_slots = 0;
	memset(connections, 0, sizeof(connections));
}

static void
add_slot(TupleTableSlot *row)
{
	bool		isnull;
	int			number = DatumGetInt32(slot_getattr(row, ATTR_SLOT, &isnull));

	if (memcmp(DatumGetUUIDP(slot_getattr(row, ATTR_FRONT, &isnull)), &own_id, sizeof(own_id)) != 0)
	{
		copied_slots++;
		return;
	}
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

/* Read the slots again if they have changed. */
static void
refresh_slots(void)
{
	refresh_cache(&front_cache);
	refresh_cache(&slots_cache);
}

static bool
is_complete(void)
{
	refresh_slots();
	return known_slots > 0 && known_slots == all_slots;
}

/* Return the number of slots.  Error 55000 if some have not been added yet. */
int
number_of_slots(void)
{
	if (!is_complete())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cluster is not complete"),
				 copied_slots > 0 ? errdetail("Its slots belong to another front.") :
				 known_slots == 0 ? errdetail("It has no slots.") :
				 errdetail("%d of %d slots have been added.", known_slots, all_slots),
				 copied_slots > 0 ? errhint("If this front is to replace the other one, call %s.add_slot with take_over => true for each slot.", EXTENSION_SCHEMA) :
				 errhint("Add the slots with %s.add_slot.", EXTENSION_SCHEMA)));
	return all_slots;
}

/* Return the number of a slot and where it is, for messages. */
const char *
slot_name(int slot)
{
	refresh_slots();
	return psprintf("%d (%s)", slot, connections[slot] == NULL ? "unknown" : connections[slot]);
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
 * front_id() returns uuid
 */
Datum
postalytics_id_of_front(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id = palloc(sizeof(*id));

	refresh_cache(&front_cache);
	*id = own_id;
	PG_RETURN_UUID_P(id);
}

/*
 * is_complete() returns boolean
 *
 * Returns true if all slots have been added, even if an older snapshot does not show it.
 */
Datum
postalytics_is_complete(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(is_complete());
}

/*
 * check_no_block(function text) returns void
 *
 * As check_no_block.
 */
Datum
postalytics_check_no_block(PG_FUNCTION_ARGS)
{
	check_no_block(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

/* Return the string after a prefix, or the string itself if it does not have the prefix. */
static char *
without_prefix(char *string, const char *prefix)
{
	if (string != NULL && strncmp(string, prefix, strlen(prefix)) == 0)
		return string + strlen(prefix);
	return string;
}

/*
 * Return the number of the slot whose database PL/Proxy names in a message, as
 * "[database]".  Returns -1 if it names none, or several slots have a database of this
 * name.
 */
static int
slot_in_message(const char *message)
{
	const char *open = strchr(message, '[');
	const char *close = open == NULL ? NULL : strchr(open, ']');
	char	   *option;
	int			found = -1;

	if (close == NULL)
		return -1;
	option = psprintf("dbname='%s'", pnstrdup(open + 1, close - open - 1));
	for (int slot = 0; slot < all_slots; slot++)
	{
		if (connections[slot] == NULL || strstr(connections[slot], option) == NULL)
			continue;
		if (found >= 0)
			return -1;
		found = slot;
	}
	return found;
}

/*
 * Change an error that was raised during a call into one for the caller: remove what
 * PL/Proxy adds to it, name the slot if it is known, and give a failed connection, a
 * timeout, and a call that was canceled on the slot, the SQLSTATE 08006.  PL/Proxy reports
 * an error of a slot as "[database] REMOTE ERROR: ", and a failed connection as an internal
 * error, "[database] PQfunction: ".
 */
static void
translate_error(ErrorData *error, bool timed_out)
{
	char	   *message = error->message == NULL ? "" : error->message;
	char	   *remote = strstr(message, "] REMOTE ");
	char	   *failed = strstr(message, "] PQ");
	int			slot = slot_in_message(message);
	const char *name = slot < 0 ? "" : psprintf("slot %d: ", slot);

	error->context = NULL;
	error->internalquery = NULL;
	error->internalpos = 0;
	error->detail = without_prefix(error->detail, "Remote detail: ");
	error->hint = without_prefix(error->hint, "Remote hint: ");
	if (remote != NULL && strstr(remote, ": ") != NULL)
	{
		error->message = psprintf("%s%s", name, strstr(remote, ": ") + 2);
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			error->sqlerrcode = ERRCODE_CONNECTION_FAILURE;
	}
	else if (timed_out)
	{
		error->sqlerrcode = ERRCODE_CONNECTION_FAILURE;
		error->message = "slot did not respond within the time limit";
		error->hint = "The slot may be down or overloaded. Query postalytics.cluster_health to see the state of each slot.";
	}
	else if (error->sqlerrcode == ERRCODE_INTERNAL_ERROR && failed != NULL && strstr(failed, ": ") != NULL)
	{
		error->sqlerrcode = ERRCODE_CONNECTION_FAILURE;
		error->message = psprintf("%scould not reach the slot: %s", name, strstr(failed, ": ") + 2);
		error->hint = "Query postalytics.cluster_health to see the state of each slot.";
	}
}

/* When the suspended statement_timeout ends; 0 if it is not suspended. */
static TimestampTz statement_end;

static void
resume_statement_timeout(void)
{
	if (statement_end != 0)
		enable_timeout_at(STATEMENT_TIMEOUT, statement_end);
	statement_end = 0;
}

/*
 * Run a query under a time limit, in milliseconds.  statement_timeout is suspended
 * meanwhile, because its SQLSTATE is 57014, but it shortens the limit.
 */
static void
run_with_limit(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, int timeout)
{
	int			level = NewGUCNestLevel();

	if (get_timeout_active(STATEMENT_TIMEOUT))
	{
		statement_end = get_timeout_finish_time(STATEMENT_TIMEOUT);
		timeout = Max(1, Min(timeout, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), statement_end)));
		disable_timeout(STATEMENT_TIMEOUT, false);
	}

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
	resume_statement_timeout();
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
		resume_statement_timeout();
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
