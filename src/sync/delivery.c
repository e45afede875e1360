/*
 * delivery.c
 *		The columns of deliveries, and the code that fetch, ack and nack share,
 *		which checks their arguments and finishes deliveries.
 *
 * Rows are found through an index that the code names (lookup.c), and changed by
 * their ctid, so that no plan depends on the state of the queue when the plan was
 * made.  Rows are locked without waiting (SKIP LOCKED) or in the order of
 * delivery_id, so that workers cannot deadlock.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/extension.h"
#include "base/query.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "rights/binding.h"
#include "rights/settings.h"
#include "storage/ensure_partition.h"
#include "sync/delivery.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_finish_deliveries);

const TableColumn deliveries_columns[N_DELIVERY_COLUMNS] = {
	[DELIVERY_ID] = COLUMN_NOT_NULL("delivery_id", INT8OID),
	[DELIVERY_SYNC] = COLUMN_NOT_NULL("sync", TEXTOID),
	[DELIVERY_PIECE_ID] = COLUMN_NOT_NULL("piece_id", TEXTOID),
	[DELIVERY_ACCOUNT] = COLUMN_NOT_NULL("account", TEXTOID),
	[DELIVERY_STATUS] = COLUMN("status", ANYENUMOID),
	[DELIVERY_OCCURRED_AT] = COLUMN_NOT_NULL("occurred_at", TIMESTAMPTZOID),
	[DELIVERY_CREATED_AT] = COLUMN_NOT_NULL("created_at", TIMESTAMPTZOID),
	[DELIVERY_DUE_AT] = COLUMN_NOT_NULL("due_at", TIMESTAMPTZOID),
	[DELIVERY_STATE] = COLUMN_NOT_NULL("state", ANYENUMOID),
	[DELIVERY_ATTEMPT] = COLUMN_NOT_NULL("attempt", INT4OID),
	[DELIVERY_IS_TEST] = COLUMN_NOT_NULL("is_test", BOOLOID),
	[DELIVERY_LEASE_UNTIL] = COLUMN("lease_until", TIMESTAMPTZOID),
	[DELIVERY_LEASES] = COLUMN("leases", INT8ARRAYOID),
	[DELIVERY_FINISHED_AT] = COLUMN("finished_at", InvalidOid),
	[DELIVERY_FAILED_AT] = COLUMN("failed_at", InvalidOid),
	[DELIVERY_ERRORS] = COLUMN("errors", InvalidOid),
	[DELIVERY_PAYLOAD] = COLUMN("payload", JSONOID),
	[DELIVERY_REASON] = COLUMN("reason", TEXTOID),
};

/* Open deliveries_unfinished.  Errors are those of open_table. */
Relation
open_unfinished(LOCKMODE mode)
{
	return open_table("deliveries_unfinished", deliveries_columns, N_DELIVERY_COLUMNS, 1, mode);
}

/* Return a column of the row of deliveries in a slot. */
Datum
delivery_attribute(TupleTableSlot *slot, int column, bool *isnull)
{
	return slot_getattr(slot, column + 1, isnull);
}

/* Read the row in a slot.  Its Datums point into the slot. */
void
read_delivery(TupleTableSlot *slot, DeliveryRow *row)
{
	bool		isnull;
	Datum		status;
	Datum		lease_until;

	row->id = DatumGetInt64(delivery_attribute(slot, DELIVERY_ID, &isnull));
	row->sync = delivery_attribute(slot, DELIVERY_SYNC, &isnull);
	row->piece = delivery_attribute(slot, DELIVERY_PIECE_ID, &isnull);
	row->account = delivery_attribute(slot, DELIVERY_ACCOUNT, &isnull);
	status = delivery_attribute(slot, DELIVERY_STATUS, &isnull);
	row->status = isnull ? NO_STATUS : status_from_oid(DatumGetObjectId(status));
	row->occurred_at = DatumGetTimestampTz(delivery_attribute(slot, DELIVERY_OCCURRED_AT, &isnull));
	row->due_at = DatumGetTimestampTz(delivery_attribute(slot, DELIVERY_DUE_AT, &isnull));
	row->attempt = DatumGetInt32(delivery_attribute(slot, DELIVERY_ATTEMPT, &isnull));
	row->is_test = DatumGetBool(delivery_attribute(slot, DELIVERY_IS_TEST, &isnull));
	lease_until = delivery_attribute(slot, DELIVERY_LEASE_UNTIL, &isnull);
	row->lease_until = isnull ? DT_NOBEGIN : DatumGetTimestampTz(lease_until);
}

/* Return a unique identifier of this session, like %c in log_line_prefix. */
int64
session_id(void)
{
	return ((int64) MyProcPid << 32) | (uint32) MyStartTime;
}

/* Return a required argument; error 22004 if it is NULL. */
Datum
required_argument(FunctionCallInfo fcinfo, int i, const char *name)
{
	if (PG_ARGISNULL(i))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be NULL", name)));
	return PG_GETARG_DATUM(i);
}

/*
 * Return the sync with this name.  granted says whether the current user may use it.
 * If not, the error reveals whether the sync exists only to users who may manage
 * syncs.  Errors: 42501 if granted is false, 42704 if the sync does not exist.
 */
const Sync *
granted_sync(const char *name, bool granted)
{
	bool		may_know = granted || may_manage();
	const Sync *sync = may_know ? find_sync(name) : NULL;

	if (!granted)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 may_know ? errmsg("permission denied for sync \"%s\"", name) :
				 errmsg("permission denied for sync \"%s\", or it does not exist", name),
				 errhint("The owner of the extension can grant access with %s.grant_sync.", EXTENSION_SCHEMA)));
	return sync;
}

/*
 * Return the sync that the first argument names, if the current user may fetch
 * from the sync.  Errors: 22004 for NULL, those of granted_sync, 22023 if the sync is
 * not durable.
 */
const Sync *
sync_argument(FunctionCallInfo fcinfo)
{
	const char *name = TextDatumGetCString(required_argument(fcinfo, 0, "sync"));
	const Sync *sync = granted_sync(name, may_use_sync(name));

	check_durable(sync);
	return sync;
}

/*
 * Add an interval, the argument of this name, to a time.  Error 22023 if the
 * interval is negative or the result is infinite.
 */
TimestampTz
time_after(TimestampTz start, Datum interval, const char *name)
{
	TimestampTz end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
															  TimestampTzGetDatum(start),
															  interval));

	if (end < start)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", name)));
	if (TIMESTAMP_NOT_FINITE(end))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be finite", name)));
	return end;
}

/* Return count ctids as an SQL array, for a query. */
Datum
tid_array(Datum *tids, int count)
{
	return PointerGetDatum(construct_array(tids, count, TIDOID, sizeof(ItemPointerData),
										   false, TYPALIGN_SHORT));
}

/* Parameters of move_query and delete_finished_query. */
enum
{
	FINISHED_TIDS, FINISHED_STATE, FINISHED_AT, N_FINISHED
};

static SqlQuery move_query = {
	.sql = "WITH finished AS ("
	"     DELETE FROM postalytics.deliveries_unfinished AS d"
	"     WHERE d.ctid = ANY ($1)"
	"     RETURNING d.delivery_id, d.sync, d.piece_id, d.account, d.status, d.occurred_at, d.created_at,"
	"               d.due_at, d.attempt, d.is_test, d.failed_at, d.errors, d.reason"
	" )"
	" INSERT INTO postalytics.deliveries"
	"     (delivery_id, sync, piece_id, account, status, occurred_at, created_at,"
	"      due_at, attempt, is_test, failed_at, errors, reason, state, finished_at)"
	" SELECT f.delivery_id, f.sync, f.piece_id, f.account, f.status, f.occurred_at, f.created_at,"
	"        f.due_at, f.attempt, f.is_test, f.failed_at, f.errors, f.reason, $2::postalytics.delivery_state, $3"
	" FROM finished AS f",
	.result = SPI_OK_INSERT,
	.nparameters = N_FINISHED,
	.types = {[FINISHED_TIDS] = TIDARRAYOID,[FINISHED_STATE] = TEXTOID,[FINISHED_AT] = TIMESTAMPTZOID}
};

static SqlQuery delete_finished_query = {
	.sql = "DELETE FROM postalytics.deliveries_unfinished AS d"
	" WHERE d.ctid = ANY ($1)",
	.result = SPI_OK_DELETE,
	.nparameters = FINISHED_TIDS + 1,
	.types = {[FINISHED_TIDS] = TIDARRAYOID}
};

static SqlQuery log_lost_history_query = {
	.sql = "INSERT INTO postalytics.maintenance_log (action, relation, detail)"
	" VALUES ('no history', 'postalytics.deliveries', 'deliveries finished without history: ' || $1)",
	.result = SPI_OK_INSERT,
	.nparameters = 1,
	.types = {INT4OID}
};

/*
 * Report that deliveries were finished without history, in the server log and
 * in maintenance_log.
 */
static void
report_lost_history(int count)
{
	Datum		values[] = {Int32GetDatum(count)};

	ereport(LOG,
			(errmsg_plural("could not keep history of %d finished delivery", "could not keep history of %d finished deliveries",
						   count, count),
			 errdetail("Today's partition of \"%s.deliveries\" is missing, and another transaction holds a conflicting lock on the table.",
					   EXTENSION_SCHEMA),
			 errhint("Run %s.maintain() every day, or add \"%s\" to shared_preload_libraries.",
					 EXTENSION_SCHEMA, EXTENSION_NAME)));
	query_run(&log_lost_history_query, values, NULL);
}

/*
 * Finish the locked rows at tids, an array of ctids: delete them from
 * deliveries_unfinished and, if history is kept, insert them into today's
 * partition of deliveries.  Does not wait for that partition: if it is missing
 * and cannot be created because of another transaction's lock, the rows are
 * deleted without history.  Needs an SPI connection.
 */
void
finish_deliveries(Datum tids, const char *state, TimestampTz now)
{
	bool		has_history = current_settings()->has_history;
	Datum		values[N_FINISHED] = {
		[FINISHED_TIDS] = tids,
		[FINISHED_STATE] = CStringGetTextDatum(state),
		[FINISHED_AT] = TimestampTzGetDatum(now)
	};

	if (has_history && ensure_day(now))
	{
		query_run(&move_query, values, NULL);
		return;
	}
	query_run(&delete_finished_query, values, NULL);
	if (has_history && SPI_processed > 0)
		report_lost_history((int) SPI_processed);
}

/*
 * finish_deliveries(tids tid[], state text) returns void
 *
 * As the C function finish_deliveries, at the current time.  The caller must hold
 * locks on the rows.  Strict.
 */
Datum
postalytics_finish_deliveries(PG_FUNCTION_ARGS)
{
	SPI_connect();
	finish_deliveries(PG_GETARG_DATUM(0), text_to_cstring(PG_GETARG_TEXT_PP(1)), GetCurrentTimestamp());
	SPI_finish();
	PG_RETURN_VOID();
}
