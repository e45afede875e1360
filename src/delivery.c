/*
 * delivery.c
 *		Deliveries: written with the events they are of, leased to workers by
 *		fetch, finished by ack, put off or given up by nack.
 *
 * All is SQL through kept plans.  Rows are locked without waiting (SKIP LOCKED)
 * or in the order of delivery_id, so that workers cannot deadlock.
 */
#include "postalytics_status.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/tstoreReceiver.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(postalytics_fetch);
PG_FUNCTION_INFO_V1(postalytics_ack);
PG_FUNCTION_INFO_V1(postalytics_nack);
PG_FUNCTION_INFO_V1(postalytics_next_due);

/* How often a fetch that waits looks again, in milliseconds. */
#define LOOK_INTERVAL	50

#define UNFINISHED "postalytics.deliveries_unfinished"

/* ---- writing ---- */

/* Columns of deliveries, as delivery.sql has them. */
enum
{
	DELIVERY_ID, DELIVERY_SYNC, DELIVERY_PIECE_ID, DELIVERY_STATUS,
	DELIVERY_OCCURRED_AT, DELIVERY_CREATED_AT, DELIVERY_DUE_AT, DELIVERY_STATE,
	DELIVERY_ATTEMPT, DELIVERY_IS_TEST, DELIVERY_LEASE_UNTIL, DELIVERY_LEASES,
	DELIVERY_FINISHED_AT, DELIVERY_FAILED_AT, DELIVERY_ERRORS, DELIVERY_PAYLOAD,
	N_DELIVERY_COLUMNS
};

static const TableColumn deliveries_columns[N_DELIVERY_COLUMNS] = {
	[DELIVERY_ID] = COLUMN_NOT_NULL("delivery_id", INT8OID),
	[DELIVERY_SYNC] = COLUMN_NOT_NULL("sync", TEXTOID),
	[DELIVERY_PIECE_ID] = COLUMN_NOT_NULL("piece_id", TEXTOID),
	[DELIVERY_STATUS] = COLUMN_NOT_NULL("status", ANYENUMOID),
	[DELIVERY_OCCURRED_AT] = COLUMN_NOT_NULL("occurred_at", TIMESTAMPTZOID),
	[DELIVERY_CREATED_AT] = COLUMN_NOT_NULL("created_at", TIMESTAMPTZOID),
	[DELIVERY_DUE_AT] = COLUMN_NOT_NULL("due_at", TIMESTAMPTZOID),
	[DELIVERY_STATE] = COLUMN_NOT_NULL("state", ANYENUMOID),
	[DELIVERY_ATTEMPT] = COLUMN_NOT_NULL("attempt", INT4OID),
	[DELIVERY_IS_TEST] = COLUMN_NOT_NULL("is_test", BOOLOID),
	[DELIVERY_LEASE_UNTIL] = COLUMN("lease_until", InvalidOid),
	[DELIVERY_LEASES] = COLUMN("leases", InvalidOid),
	[DELIVERY_FINISHED_AT] = COLUMN("finished_at", InvalidOid),
	[DELIVERY_FAILED_AT] = COLUMN("failed_at", InvalidOid),
	[DELIVERY_ERRORS] = COLUMN("errors", InvalidOid),
	[DELIVERY_PAYLOAD] = COLUMN("payload", InvalidOid),
};

struct DeliveryWriter
{
	MemoryContext context;
	MemoryContext row_context;
	Relation	unfinished;		/* NULL until there is something to write */
	DirectTable *direct;		/* NULL if only a query can write to it */
	Tuplestorestate *rows;		/* for the query */
	int64		count;
	Datum		waiting;		/* the state */
	Oid			delivery_ids;
};

/* Writes deliveries; needs an SPI connection. */
DeliveryWriter *
delivery_writer_create(MemoryContext parent)
{
	DeliveryWriter *writer = MemoryContextAllocZero(parent, sizeof(DeliveryWriter));

	writer->context = parent;
	return writer;
}

static Datum
waiting_state(Relation deliveries)
{
	Oid			type = TupleDescAttr(RelationGetDescr(deliveries), DELIVERY_STATE)->atttypid;

	return DirectFunctionCall2(enum_in, CStringGetDatum("waiting"), ObjectIdGetDatum(type));
}

static void
begin_writing(DeliveryWriter *writer)
{
	MemoryContext caller = MemoryContextSwitchTo(writer->context);

	writer->unfinished = table_open(extension_relation("deliveries_unfinished"),
									RowExclusiveLock);
	writer->row_context = AllocSetContextCreate(writer->context, "postalytics delivery",
												ALLOCSET_SMALL_SIZES);
	check_columns(writer->unfinished, deliveries_columns, N_DELIVERY_COLUMNS);
	if (direct_allowed(writer->unfinished, deliveries_columns, N_DELIVERY_COLUMNS))
		writer->direct = direct_open(writer->unfinished);
	else
		writer->rows = tuplestore_begin_heap(false, false, work_mem);
	writer->waiting = waiting_state(writer->unfinished);
	writer->delivery_ids = extension_relation("delivery_id_seq");
	MemoryContextSwitchTo(caller);
}

static void
write_row(DeliveryWriter *writer, Datum *values, bool *nulls)
{
	if (writer->direct == NULL)
		tuplestore_putvalues(writer->rows, RelationGetDescr(writer->unfinished), values, nulls);
	else if (!direct_insert(writer->direct, values, nulls, true))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("delivery_id " INT64_FORMAT " is taken", DatumGetInt64(values[DELIVERY_ID])),
				 errhint("Set %s.delivery_id_seq beyond the ids that there are.", EXTENSION_SCHEMA)));
	writer->count++;
}

/* Owe a sync an event.  Days and months of its wait count in UTC. */
void
delivery_add(DeliveryWriter *writer, const Sync *sync, const EventRow *row)
{
	MemoryContext caller;
	Datum	   *values;
	bool	   *nulls;

	if (writer->unfinished == NULL)
		begin_writing(writer);
	caller = MemoryContextSwitchTo(writer->row_context);
	new_row(RelationGetDescr(writer->unfinished), &values, &nulls);
	for (int i = DELIVERY_ID; i <= DELIVERY_IS_TEST; i++)
		nulls[i] = false;
	values[DELIVERY_ID] = Int64GetDatum(nextval_internal(writer->delivery_ids, false));
	values[DELIVERY_SYNC] = CStringGetTextDatum(sync->name);
	values[DELIVERY_PIECE_ID] =
		PointerGetDatum(cstring_to_text_with_len(row->piece, row->piece_length));
	values[DELIVERY_STATUS] = ObjectIdGetDatum(status_oid(row->status));
	values[DELIVERY_OCCURRED_AT] = TimestampTzGetDatum(row->occurred_at);
	values[DELIVERY_CREATED_AT] = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	values[DELIVERY_DUE_AT] =
		DirectFunctionCall2(timestamp_pl_interval,
							TimestampGetDatum(row->occurred_at),
							IntervalPGetDatum(&sync->wait));
	values[DELIVERY_STATE] = writer->waiting;
	values[DELIVERY_ATTEMPT] = Int32GetDatum(0);
	values[DELIVERY_IS_TEST] = BoolGetDatum(false);
	write_row(writer, values, nulls);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(writer->row_context);
}

/* Write what a query must write. */
static void
write_by_query(DeliveryWriter *writer)
{
	static SPIPlanPtr plan = NULL;

	register_rows("owed", RelationGetRelid(writer->unfinished), writer->rows, writer->count);
	if (SPI_execute_plan(keep_plan(&plan,
								   "INSERT INTO " UNFINISHED
								   " (delivery_id, sync, piece_id, status, occurred_at, due_at)"
								   " SELECT delivery_id, sync, piece_id, status, occurred_at, due_at"
								   " FROM owed",
								   0, NULL),
						 NULL, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write deliveries");
	SPI_unregister_relation("owed");
	tuplestore_end(writer->rows);
}

/* No more deliveries. */
void
delivery_finish(DeliveryWriter *writer)
{
	if (writer->unfinished == NULL)
		return;
	if (writer->direct != NULL)
		direct_close(writer->direct);
	else
		write_by_query(writer);
	table_close(writer->unfinished, NoLock);
}

/* ---- what the worker's functions share ---- */

/* Execute a kept plan. */
static void
execute(SPIPlanPtr plan, Datum *values, const char *nulls, int expected)
{
	int			result = SPI_execute_plan(plan, values, nulls, false, 0);

	if (result != expected)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(result));
}

/* What tells this session from every other, as %c does in the server's log. */
static int64
session_id(void)
{
	return ((int64) MyProcPid << 32) | (uint32) MyStartTime;
}

/* An argument that must be there; error 22004. */
static Datum
argument(FunctionCallInfo fcinfo, int i, const char *name)
{
	if (PG_ARGISNULL(i))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be NULL", name)));
	return PG_GETARG_DATUM(i);
}

/*
 * The sync that the first argument names; it must have deliveries, and the
 * session's role the right to them.
 */
static const Sync *
sync_argument(FunctionCallInfo fcinfo)
{
	const Sync *sync = find_sync(TextDatumGetCString(argument(fcinfo, 0, "sync")));

	if (!sync->durable)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("sync \"%s\" is not durable, so it has no deliveries", sync->name),
				 errhint("LISTEN on its channel, or make it anew with durable => true.")));
	check_sync_worker(sync);
	return sync;
}

/* The instant that lies an interval after another; error 22023 if before. */
static TimestampTz
instant_after(TimestampTz start, Datum interval, const char *name)
{
	TimestampTz end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
															  TimestampTzGetDatum(start),
															  interval));

	if (end < start)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be negative", name)));
	return end;
}

/*
 * Earlier deliveries, as e, of the same piece to the same sync as d, that are
 * to be finished first.
 */
#define EARLIER \
	" FROM " UNFINISHED " AS e" \
	" WHERE e.piece_id = d.piece_id" \
	"   AND e.sync = d.sync" \
	"   AND e.occurred_at <= d.occurred_at" \
	"   AND (e.occurred_at, e.status, e.delivery_id) < (d.occurred_at, d.status, d.delivery_id)" \
	"   AND NOT e.is_test"

/* Is d due at $2, and in nobody's hands? */
#define READY \
	" d.sync = $1 AND d.due_at <= $2 AND (d.lease_until IS NULL OR d.lease_until <= $2)"

#define ERRORS_WITH(at, reason) \
	" d.errors || ROW(d.attempt, " at ", " reason ")::postalytics.delivery_error"

/* ---- finishing ---- */

/* Is there to be a history?  Then its leaf for now is there. */
static bool
keep_history(TimestampTz now)
{
	if (setting_history == 0)
		return false;
	ensure_day(now);
	return true;
}

/* "WITH gone AS (DELETE … RETURNING d.*)": to the history with them, at $1 as $2. */
#define INTO_HISTORY(gone) \
	"WITH gone AS (" gone \
	" RETURNING d.delivery_id, d.sync, d.piece_id, d.status, d.occurred_at, d.created_at," \
	"           d.due_at, d.attempt, d.is_test, d.failed_at, d.errors)" \
	" INSERT INTO postalytics.deliveries" \
	" (delivery_id, sync, piece_id, status, occurred_at, created_at, due_at," \
	"  state, attempt, is_test, finished_at, failed_at, errors)" \
	" SELECT delivery_id, sync, piece_id, status, occurred_at, created_at, due_at," \
	"        $2::postalytics.delivery_state, attempt, is_test, $1, failed_at, errors" \
	" FROM gone"

/* ---- fetch ---- */

/* What is to become of a row that is ready. */
typedef enum Verdict
{
	LEASE,
	PUT_OFF,					/* behind one of its piece that was put off */
	GIVE_UP,					/* the last lease it could have has run out */
	SUPERSEDE,
	CANCEL
} Verdict;

#define N_VERDICTS	(CANCEL + 1)

/* The rows that one look found, by verdict. */
typedef struct Found
{
	int			count;			/* of all */
	struct
	{
		int			count;
		Datum	   *places;
	}			verdict[N_VERDICTS];
	Datum	   *put_off_to;
	TimestampTz first;			/* to lease, by occurred_at */
	TimestampTz last;
	TimestampTz last_due;		/* of all, by due_at */
	bool		lacks_day;		/* what is finished has no leaf yet: nothing is done */
} Found;

/*
 * Lock what is ready, and judge it.  What waits behind a delivery that was put
 * off is put off too; so that it is looked at once, and not with every fetch.
 * The last column is a Verdict.
 */
#define PICK(before, not_blocked, overtaken) \
	"SELECT d.ctid, d.occurred_at, b.put_off_to, d.due_at," \
	"       CASE WHEN d.is_test AND d.attempt < $4 THEN 0" \
	"            WHEN b.put_off_to IS NOT NULL AND NOT d.is_test THEN 1" \
	"            WHEN d.attempt >= $4 THEN 2" \
	overtaken \
	"            ELSE 0" \
	"       END" \
	" FROM " UNFINISHED " AS d" \
	" CROSS JOIN LATERAL (SELECT " before ") AS b (blocked_since, put_off_to)" \
	" WHERE" READY " AND d.due_at >= $5" not_blocked \
	" ORDER BY d.due_at" \
	" LIMIT $3" \
	" FOR UPDATE OF d SKIP LOCKED"

/*
 * For a sync that is ordered: what of the piece is before it.  With latest_only,
 * $6, only what is in somebody's hands is: all else it overtakes.
 */
#define BEFORE \
	"pg_catalog.min(e.due_at), pg_catalog.max(e.due_at)" EARLIER " AND e.due_at < 'infinity'" \
	" AND (NOT $6 OR e.lease_until > $2)"
#define NOT_BLOCKED \
	" AND (d.is_test OR b.blocked_since IS NULL OR b.blocked_since > $2)"

/* For any other. */
#define NOTHING_BEFORE	"NULL::timestamptz, NULL::timestamptz"

/* For a sync with latest_only or unless. */
#define OVERTAKEN \
	" WHEN $6" \
	"      AND EXISTS (SELECT FROM postalytics.deliveries AS l" \
	"                  WHERE l.piece_id = d.piece_id" \
	"                    AND l.sync = d.sync" \
	"                    AND (l.occurred_at, l.status) > (d.occurred_at, d.status)" \
	"                    AND NOT l.is_test" \
	"                    AND l.state <> 'cancelled') THEN 3" \
	" WHEN EXISTS (SELECT" \
	"              FROM postalytics.syncs AS s" \
	"              CROSS JOIN unnest(s.unless) AS u (status)" \
	"              JOIN postalytics.pieces AS p ON p.piece_id = d.piece_id" \
	"              WHERE s.name = $1" \
	"                AND postalytics.reached_at(p, u.status) IS NOT NULL) THEN 4"

static const char *const pick_query[2][2] = {	/* ordered, may be overtaken */
	{PICK(NOTHING_BEFORE, "", ""), PICK(NOTHING_BEFORE, "", OVERTAKEN)},
	{PICK(BEFORE, NOT_BLOCKED, ""), PICK(BEFORE, NOT_BLOCKED, OVERTAKEN)}
};

static void
pick(const Sync *sync, TimestampTz now, TimestampTz from, int batch)
{
	static SPIPlanPtr plans[2][2];
	bool		overtaken = sync->latest_only || sync->has_unless;
	Oid			types[] = {TEXTOID, TIMESTAMPTZOID, INT8OID, INT4OID, TIMESTAMPTZOID, BOOLOID};
	Datum		values[] = {
		CStringGetTextDatum(sync->name), TimestampTzGetDatum(now),
		Int64GetDatum(batch), Int32GetDatum(sync->max_attempts),
		TimestampTzGetDatum(from), BoolGetDatum(sync->latest_only)
	};

	execute(keep_plan(&plans[sync->ordered][overtaken],
					  pick_query[sync->ordered][overtaken], lengthof(types), types),
			values, NULL, SPI_OK_SELECT);
}

/* Read what pick found. */
static void
read_found(Found *found)
{
	TupleDesc	tupdesc = SPI_tuptable->tupdesc;
	bool		isnull;

	memset(found, 0, sizeof(*found));
	found->count = SPI_processed;
	for (int i = 0; i < N_VERDICTS; i++)
		found->verdict[i].places = palloc(found->count * sizeof(Datum));
	found->put_off_to = palloc(found->count * sizeof(Datum));
	found->first = DT_NOEND;
	found->last = DT_NOBEGIN;
	for (int i = 0; i < found->count; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		Datum		place = SPI_getbinval(row, tupdesc, 1, &isnull);
		TimestampTz occurred_at = DatumGetTimestampTz(SPI_getbinval(row, tupdesc, 2, &isnull));
		Datum		put_off_to = SPI_getbinval(row, tupdesc, 3, &isnull);
		Verdict		verdict = DatumGetInt32(SPI_getbinval(row, tupdesc, 5, &isnull));
		int			nth = found->verdict[verdict].count++;

		found->last_due = DatumGetTimestampTz(SPI_getbinval(row, tupdesc, 4, &isnull));
		found->verdict[verdict].places[nth] = place;
		if (verdict == PUT_OFF)
			found->put_off_to[nth] = put_off_to;
		if (verdict == LEASE)
		{
			found->first = Min(found->first, occurred_at);
			found->last = Max(found->last, occurred_at);
		}
	}
}

static Datum
place_array(Datum *places, int count)
{
	return PointerGetDatum(construct_array(places, count, TIDOID, sizeof(ItemPointerData),
										   false, TYPALIGN_SHORT));
}

/* Finish the rows at these places. */
static void
finish(Datum places, const char *state, TimestampTz now)
{
	static SPIPlanPtr move_plan = NULL;
	static SPIPlanPtr forget_plan = NULL;
	Oid			types[] = {TIMESTAMPTZOID, TEXTOID, TIDARRAYOID};
	Datum		values[] = {TimestampTzGetDatum(now), CStringGetTextDatum(state), places};

#define GONE "DELETE FROM " UNFINISHED " AS d WHERE d.ctid = ANY ($3)"
	if (keep_history(now))
		execute(keep_plan(&move_plan, INTO_HISTORY(GONE), lengthof(types), types),
				values, NULL, SPI_OK_INSERT);
	else
		execute(keep_plan(&forget_plan, GONE, lengthof(types), types),
				values, NULL, SPI_OK_DELETE);
#undef GONE
}

static void
put_off(Datum places, Datum *until, int count)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {TIDARRAYOID, TIMESTAMPTZARRAYOID};
	Datum		values[] = {
		places,
		PointerGetDatum(construct_array(until, count, TIMESTAMPTZOID, sizeof(TimestampTz),
										FLOAT8PASSBYVAL, TYPALIGN_DOUBLE))
	};

	execute(keep_plan(&plan,
					  "UPDATE " UNFINISHED " AS d"
					  " SET due_at = f.until"
					  " FROM unnest($1, $2) AS f (place, until)"
					  " WHERE d.ctid = f.place",
					  lengthof(types), types),
			values, NULL, SPI_OK_UPDATE);
}

static void
give_up(Datum places, TimestampTz now)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {TIDARRAYOID, TIMESTAMPTZOID};
	Datum		values[] = {places, TimestampTzGetDatum(now)};

	execute(keep_plan(&plan,
					  "UPDATE " UNFINISHED " AS d"
					  " SET state = 'dead', due_at = 'infinity', lease_until = NULL,"
					  "     errors =" ERRORS_WITH("$2", "'lease expired'") ", failed_at = $2"
					  " WHERE d.ctid = ANY ($1)",
					  lengthof(types), types),
			values, NULL, SPI_OK_UPDATE);
}

/* Do as was judged with all that is not to be leased. */
static void
settle(const Found *found, TimestampTz now)
{
	for (Verdict verdict = PUT_OFF; verdict < N_VERDICTS; verdict++)
	{
		int			count = found->verdict[verdict].count;
		Datum		places;

		if (count == 0)
			continue;
		places = place_array(found->verdict[verdict].places, count);
		switch (verdict)
		{
			case PUT_OFF:
				put_off(places, found->put_off_to, count);
				break;
			case GIVE_UP:
				give_up(places, now);
				break;
			default:
				finish(places, verdict == SUPERSEDE ? "superseded" : "cancelled", now);
		}
	}
}

/*
 * Lease them, and give all that is known of each.  events is searched between
 * the first and the last of them only, so that months are pruned at once.
 */
static const char lease_query[] =
"WITH leased AS ("
" UPDATE " UNFINISHED " AS d"
" SET state = 'leased', attempt = d.attempt + 1, lease_until = $3,"
"     leases = d.leases || $4,"
"     errors = CASE d.state WHEN 'leased' THEN" ERRORS_WITH("$2", "'lease expired'") " ELSE d.errors END,"
"     failed_at = CASE d.state WHEN 'leased' THEN $2 ELSE d.failed_at END"
" WHERE d.ctid = ANY ($1)"
" RETURNING d.delivery_id, d.attempt, d.is_test, d.status, d.occurred_at, d.due_at, d.piece_id, d.payload)"
" SELECT l.delivery_id, l.attempt, l.is_test, l.status, postalytics.label(l.status),"
"        l.occurred_at, l.due_at, l.piece_id, COALESCE(e.account, p.account),"
"        COALESCE(e.campaign_id, p.campaign_id), c.name, p.contact_id,"
"        p.first_name, p.last_name, p.company, p.email, p.country, p.fields,"
"        COALESCE(l.payload, e.payload)"
" FROM leased AS l"
" LEFT JOIN postalytics.events AS e"
"   ON (e.piece_id, e.status, e.occurred_at) = (l.piece_id, l.status, l.occurred_at)"
"   AND e.occurred_at BETWEEN $5 AND $6"
" LEFT JOIN postalytics.pieces AS p ON p.piece_id = l.piece_id"
" LEFT JOIN postalytics.campaigns AS c ON c.campaign_id = COALESCE(e.campaign_id, p.campaign_id)"
" ORDER BY l.due_at, l.delivery_id";

static void
lease(const Found *found, TimestampTz now, TimestampTz until, ReturnSetInfo *result)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {
		TIDARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID
	};
	Datum		values[] = {
		place_array(found->verdict[LEASE].places, found->verdict[LEASE].count),
		TimestampTzGetDatum(now), TimestampTzGetDatum(until),
		Int64GetDatum(session_id()),
		TimestampTzGetDatum(found->first), TimestampTzGetDatum(found->last)
	};
	SPIExecuteOptions options = {.params = makeParamList(lengthof(types))};

	for (int i = 0; i < lengthof(types); i++)
		options.params->params[i] = (ParamExternData) {
			.value = values[i], .pflags = PARAM_FLAG_CONST, .ptype = types[i]
		};
	/* Straight into the result: the rows are large. */
	options.dest = CreateTuplestoreDestReceiver();
	SetTuplestoreDestReceiverParams(options.dest, result->setResult,
									result->econtext->ecxt_per_query_memory, false, NULL, NULL);
	if (SPI_execute_plan_extended(keep_plan(&plan, lease_query, lengthof(types), types),
								  &options) != SPI_OK_SELECT)
		elog(ERROR, "could not lease deliveries");
}

/*
 * While somebody's old snapshot keeps what was finished from being cleaned up
 * (pg_dump takes hours), every look from the start would pass over all of it.
 * So a session that works through a backlog goes on from where it was, and
 * looks from the start once in a while, and when it finds less than it wants.
 */
static struct
{
	char		sync[NAMEDATALEN];
	TimestampTz from;			/* by due_at */
	TimestampTz until;			/* by the clock */
}			backlog;

#define FROM_START_INTERVAL	(1 * USECS_PER_SEC)

static void
pick_on(const Sync *sync, TimestampTz now, int batch, Found *found)
{
	bool		goes_on = strcmp(backlog.sync, sync->name) == 0 && now < backlog.until;

	if (goes_on)
	{
		pick(sync, now, backlog.from, batch);
		read_found(found);
		goes_on = found->count == batch;
	}
	if (!goes_on)
	{
		pick(sync, now, DT_NOBEGIN, batch);
		read_found(found);
		strlcpy(backlog.sync, sync->name, NAMEDATALEN);
		backlog.until = now + FROM_START_INTERVAL;
	}
	backlog.from = found->last_due;
	if (found->count < batch)
		backlog.until = now;
}

/* Look once: hand out what is ready, and settle the rest of what was found. */
static void
look(FunctionCallInfo fcinfo, const Sync *sync, int batch, Found *found)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until = instant_after(now, argument(fcinfo, 2, "lease"), "lease");

	/* In the order of those who retire a month: events first, then deliveries. */
	LockRelationOid(extension_relation("events"), AccessShareLock);
	SPI_connect();
	pick_on(sync, now, batch, found);
	found->lacks_day = found->verdict[SUPERSEDE].count + found->verdict[CANCEL].count > 0 &&
		setting_history > 0 && !has_day(now);
	if (!found->lacks_day)
	{
		settle(found, now);
		if (found->verdict[LEASE].count > 0)
			lease(found, now, until, (ReturnSetInfo *) fcinfo->resultinfo);
	}
	SPI_finish();
}

/*
 * The same, and if it changed nothing it lets go of its locks: for a fetch that
 * waits they would be in the way of maintain() as long; and who makes the day's
 * leaf must not have rows locked, for ack makes it first.
 */
static void
look_and_let_go(FunctionCallInfo fcinfo, const Sync *sync, int batch, Found *found)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		look(fcinfo, sync, batch, found);
	}
	PG_CATCH();
	{
		/* A caller's handler must not take this subtransaction for its own. */
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
		ReThrowError(error);
	}
	PG_END_TRY();
	if (found->count > 0 && !found->lacks_day)
		ReleaseCurrentSubTransaction();
	else
		RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	if (found->lacks_day)
	{
		backlog.until = DT_NOBEGIN;
		ensure_day(GetCurrentTimestamp());
	}
}

/*
 * Hand out what is due now; was there anything to do?  What was settled counts:
 * who waits after it would keep its rows, and the day's leaf, from others as long.
 */
static bool
fetch_due(FunctionCallInfo fcinfo, int batch, bool may_wait)
{
	Found		found;
	bool		done = false;

	do
	{
		const Sync *sync = sync_argument(fcinfo);

		if (!sync->enabled)
			break;
		CHECK_FOR_INTERRUPTS();
		if (may_wait || sync->latest_only || sync->has_unless)
			look_and_let_go(fcinfo, sync, batch, &found);
		else
			look(fcinfo, sync, batch, &found);
		done |= found.count > 0;
	} while (found.lacks_day || (found.verdict[LEASE].count == 0 && found.count > 0));
	return done;
}

/* Sleep until it is time to look again. */
static void
wait_a_little(TimestampTz deadline)
{
	long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 Min(Max(left, 1), LOOK_INTERVAL), PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	AcceptInvalidationMessages();
}

/*
 * fetch(sync text, batch integer, lease interval, max_wait interval)
 * returns setof delivery
 *
 * Leases up to batch deliveries that are due to the caller, in the order in
 * which they are due, and for a sync that is ordered at most one a piece; none
 * while the sync is disabled.  If there are none it looks again until max_wait
 * is over, or until it has cancelled or superseded some.  Locks: the rows, SKIP
 * LOCKED.  Errors: 42704 for no such sync,
 * 22004 for NULL, 22023 for a batch below 1, negative intervals, and a sync
 * that is not durable, 42501 for somebody else's.
 */
Datum
postalytics_fetch(PG_FUNCTION_ARGS)
{
	int			batch = DatumGetInt32(argument(fcinfo, 1, "batch"));
	TimestampTz deadline = instant_after(GetCurrentTimestamp(),
										 argument(fcinfo, 3, "max_wait"), "max_wait");

	if (batch < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch must be at least 1")));
	InitMaterializedSRF(fcinfo, 0);
	while (!fetch_due(fcinfo, batch, GetCurrentTimestamp() < deadline) &&
		   GetCurrentTimestamp() < deadline)
		wait_a_little(deadline);
	return (Datum) 0;
}

/* ---- ack and nack ---- */

/*
 * Those of the deliveries $4 to sync $3 that are leased, and to the caller.
 * With attempts $5 given, his is the attempt that he fetched.  Without, he is
 * refused whose session, $6, had it before and has it no more; another session
 * is not, for behind a pooler it may be his as well.  Either way rows are
 * locked in the order of delivery_id: an index takes an array's in its order.
 */
#define LEASED " d.sync = $3 AND d.state = 'leased' AND "
#define BY_SESSION \
	" WHERE d.delivery_id = ANY ($4)" \
	"   AND" LEASED "(d.leases[d.attempt] = $6 OR $6 <> ALL (d.leases))"
#define BY_ATTEMPT(from) \
	from " (SELECT * FROM unnest($4, $5) AS u (delivery_id, attempt) ORDER BY delivery_id) AS g" \
	" WHERE d.delivery_id = g.delivery_id" \
	"   AND" LEASED "d.attempt = g.attempt"

#define MAX_PARAMETERS	9

static Oid parameter_types[MAX_PARAMETERS] = {
	TIMESTAMPTZOID, TEXTOID, TEXTOID, INT8ARRAYOID, INT4ARRAYOID, INT8OID,
	INTERVALOID, BOOLOID, INT4OID
};

typedef struct Parameters
{
	Datum		values[MAX_PARAMETERS];
	char		nulls[MAX_PARAMETERS];
} Parameters;

static int
items_of(Datum array)
{
	ArrayType  *items = DatumGetArrayTypeP(array);

	return ArrayGetNItems(ARR_NDIM(items), ARR_DIMS(items));
}

/* The first six, but for $2; error 22023 for attempts that are not one a delivery. */
static void
read_parameters(FunctionCallInfo fcinfo, int attempts, Parameters *parameters)
{
	const Sync *sync = sync_argument(fcinfo);

	memset(parameters->nulls, ' ', sizeof(parameters->nulls));
	parameters->values[0] = TimestampTzGetDatum(GetCurrentTimestamp());
	parameters->values[2] = PG_GETARG_DATUM(0);
	parameters->values[3] = PG_GETARG_DATUM(1);
	parameters->nulls[3] = PG_ARGISNULL(1) ? 'n' : ' ';
	parameters->values[4] = PG_GETARG_DATUM(attempts);
	parameters->nulls[4] = PG_ARGISNULL(attempts) ? 'n' : ' ';
	parameters->values[5] = Int64GetDatum(session_id());
	parameters->values[8] = Int32GetDatum(sync->max_attempts);
	if (!PG_ARGISNULL(1) && !PG_ARGISNULL(attempts) &&
		items_of(parameters->values[3]) != items_of(parameters->values[4]))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("attempts must be as many as delivery_ids")));
}

/* A query in both forms, and its plans. */
typedef struct OwnerQuery
{
	const char *by_session;
	const char *by_attempt;
	SPIPlanPtr	plans[2];
	int			nargs;
	int			expected;
} OwnerQuery;

static int64
run_query(OwnerQuery *query, Parameters *parameters)
{
	bool		by_attempt = parameters->nulls[4] == ' ';
	int64		count;

	SPI_connect();
	execute(keep_plan(&query->plans[by_attempt],
					  by_attempt ? query->by_attempt : query->by_session,
					  query->nargs, parameter_types),
			parameters->values, parameters->nulls, query->expected);
	count = SPI_processed;
	SPI_finish();
	return count;
}

/*
 * ack(sync text, delivery_ids bigint[], attempts integer[]) returns bigint
 *
 * Finishes the deliveries that are leased to the caller, and counts them.  A
 * lease that has run out is his until somebody else fetches.  NULL ids and an
 * id given twice count for nothing; so does a NULL array.  Locks: the rows, by
 * delivery_id.  Errors: 42704 for no such sync, 42501 for somebody else's,
 * 22004 for a NULL sync, 22023 for one that is not durable or attempts of another
 * length.
 */
Datum
postalytics_ack(PG_FUNCTION_ARGS)
{
	static OwnerQuery move = {
		.by_session = INTO_HISTORY("DELETE FROM " UNFINISHED " AS d" BY_SESSION),
		.by_attempt = INTO_HISTORY("DELETE FROM " UNFINISHED " AS d" BY_ATTEMPT(" USING")),
		.nargs = 6,
		.expected = SPI_OK_INSERT
	};
	static OwnerQuery forget = {
		.by_session = "DELETE FROM " UNFINISHED " AS d" BY_SESSION,
		.by_attempt = "DELETE FROM " UNFINISHED " AS d" BY_ATTEMPT(" USING"),
		.nargs = 6,
		.expected = SPI_OK_DELETE
	};
	Parameters	parameters;

	read_parameters(fcinfo, 2, &parameters);
	parameters.values[1] = CStringGetTextDatum("done");
	if (keep_history(DatumGetTimestampTz(parameters.values[0])))
		PG_RETURN_INT64(run_query(&move, &parameters));
	PG_RETURN_INT64(run_query(&forget, &parameters));
}

/*
 * Puts off by $7, or else by what doubles from 5 seconds to 6 hours, give or
 * take a quarter, so that what failed together does not come back together.
 */
#define DEAD \
	" $8 OR d.attempt >= $9 "

#define NACK \
	"UPDATE " UNFINISHED " AS d" \
	" SET state = CASE WHEN" DEAD "THEN 'dead' ELSE 'waiting' END::postalytics.delivery_state," \
	"     due_at = CASE WHEN" DEAD "THEN 'infinity'" \
	"                   ELSE $1 + COALESCE($7, LEAST('5 s'::interval * pg_catalog.power(2, LEAST(d.attempt, 30) - 1), '6 h')" \
	"                                          * (0.75 + pg_catalog.random() / 2)) END," \
	"     lease_until = NULL," \
	"     errors =" ERRORS_WITH("$1", "pg_catalog.left($2, 2000)") "," \
	"     failed_at = $1"

/*
 * nack(sync text, delivery_ids bigint[], error text, retry_in interval,
 *		dead boolean, attempts integer[]) returns bigint
 *
 * The deliveries that are leased to the caller failed: notes the error with
 * each, puts them off by retry_in, or if that is NULL by ever longer, or gives
 * them up, if dead is true or they had as many attempts as the sync allows;
 * and counts them.  All else as ack.  Errors: also 22023 for a negative
 * retry_in.
 */
Datum
postalytics_nack(PG_FUNCTION_ARGS)
{
	static OwnerQuery query = {
		.by_session = NACK BY_SESSION,
		.by_attempt = NACK BY_ATTEMPT(" FROM"),
		.nargs = MAX_PARAMETERS,
		.expected = SPI_OK_UPDATE
	};
	Parameters	parameters;
	int64		failed;

	read_parameters(fcinfo, 5, &parameters);
	parameters.values[1] = PG_ARGISNULL(2) ?
		CStringGetTextDatum("no error given") : PG_GETARG_DATUM(2);
	parameters.values[6] = PG_GETARG_DATUM(3);
	parameters.nulls[6] = PG_ARGISNULL(3) ? 'n' : ' ';
	parameters.values[7] = argument(fcinfo, 4, "dead");
	if (!PG_ARGISNULL(3))
		(void) instant_after(DatumGetTimestampTz(parameters.values[0]),
							 parameters.values[6], "retry_in");
	failed = run_query(&query, &parameters);
	if (failed > 0 && wake_has_worker())
	{
		const Sync *sync = sync_argument(fcinfo);

		wake_worker(sync->name, sync->channel, 0);
	}
	PG_RETURN_INT64(failed);
}

/* ---- next_due ---- */

/* In an ordered sync: is none before it due, or in somebody's hands? */
#define NEXT_OF_PIECE \
	" AND (d.is_test OR NOT EXISTS (SELECT" EARLIER " AND e.due_at <= $2))"

/* What is ready, else when the first lease ends or the first is due. */
#define NEXT_DUE(next_of_piece) \
	"SELECT COALESCE(" \
	" (SELECT d.due_at FROM " UNFINISHED " AS d" \
	"  WHERE" READY next_of_piece \
	"  ORDER BY d.due_at LIMIT 1)," \
	" LEAST((SELECT pg_catalog.min(d.lease_until) FROM " UNFINISHED " AS d" \
	"        WHERE d.sync = $1 AND d.due_at <= $2 AND d.lease_until > $2)," \
	"       (SELECT d.due_at FROM " UNFINISHED " AS d" \
	"        WHERE d.sync = $1 AND d.due_at > $2 AND d.due_at < 'infinity'" \
	"        ORDER BY d.due_at LIMIT 1)))"

/*
 * next_due(sync text) returns timestamptz
 *
 * When there will be something to fetch, as far as can be known: past if there
 * is now, NULL if nothing waits or the sync is disabled.  Errors: as fetch.
 */
Datum
postalytics_next_due(PG_FUNCTION_ARGS)
{
	static SPIPlanPtr ordered_plan = NULL;
	static SPIPlanPtr unordered_plan = NULL;
	const Sync *sync = sync_argument(fcinfo);
	Oid			types[] = {TEXTOID, TIMESTAMPTZOID};
	Datum		values[] = {
		CStringGetTextDatum(sync->name), TimestampTzGetDatum(GetCurrentTimestamp())
	};
	Datum		due;
	bool		isnull;

	if (!sync->enabled)
		PG_RETURN_NULL();
	SPI_connect();
	execute(sync->ordered ?
			keep_plan(&ordered_plan, NEXT_DUE(NEXT_OF_PIECE), 2, types) :
			keep_plan(&unordered_plan, NEXT_DUE(""), 2, types),
			values, NULL, SPI_OK_SELECT);
	due = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	SPI_finish();
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(due);
}
