/*
 * breaker.c
 *		Pauses a sync after a number of consecutive failures.
 *
 * The breaker of a sync is closed until the number of deliveries that have failed
 * since the last success reaches syncs.breaker.  Then the breaker trips, and the
 * sync is paused for 30 seconds.  After the pause the breaker is half-open, and
 * one delivery is leased at a time (pace.c).  If that delivery fails, the breaker
 * trips again, and the pause is twice as long, up to an hour.  The first success
 * closes the breaker.  Failures during a pause are not counted, because they
 * belong to earlier leases.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/query.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "fmgr.h"
#include "sync/breaker.h"
#include "sync/timeline.h"
#include "sync/turn.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_end_breaker_pause);

#define FIRST_BREAK		(30 * USECS_PER_SEC)
#define LONGEST_BREAK	USECS_PER_HOUR

/* Columns of breaker_events, as in breaker.sql. */
enum
{
	EVENT_SYNC, EVENT_AT, EVENT_FAILURES, EVENT_TRIPS, EVENT_UNTIL, N_EVENT_COLUMNS
};

static const TableColumn event_columns[N_EVENT_COLUMNS] = {
	[EVENT_SYNC] = COLUMN_NOT_NULL("sync", TEXTOID),
	[EVENT_AT] = COLUMN_NOT_NULL("at", TIMESTAMPTZOID),
	[EVENT_FAILURES] = COLUMN_NOT_NULL("failures", INT4OID),
	[EVENT_TRIPS] = COLUMN_NOT_NULL("trips", INT4OID),
	[EVENT_UNTIL] = COLUMN("until", TIMESTAMPTZOID),
};

static const Timeline events = {"breaker_events", "breaker_events_sync_at_idx", event_columns, N_EVENT_COLUMNS};

/*
 * Return the state of a sync's breaker, including changes that other
 * transactions have not committed yet.
 */
Breaker
get_breaker(const Sync *sync)
{
	Breaker		breaker = {DT_NOBEGIN, 0, 0, DT_NOBEGIN};
	SnapshotData dirty;
	Lookup		lookup;

	if (sync->breaker == 0)
		return breaker;
	InitDirtySnapshot(dirty);
	timeline_begin(&lookup, &events, &dirty, sync, DT_NOBEGIN);
	if (lookup_next(&lookup, BackwardScanDirection))
	{
		breaker.at = DatumGetTimestampTz(timeline_value(&lookup, EVENT_AT));
		breaker.failures = DatumGetInt32(timeline_value(&lookup, EVENT_FAILURES));
		breaker.trips = DatumGetInt32(timeline_value(&lookup, EVENT_TRIPS));
		if (breaker.trips > 0)
			breaker.until = DatumGetTimestampTz(timeline_value(&lookup, EVENT_UNTIL));
	}
	timeline_end(&lookup);
	return breaker;
}

static SqlQuery insert_state_query = {
	.sql = "INSERT INTO postalytics.breaker_events (sync, at, failures, trips, until)"
	" VALUES ($1, $2, $3, $4, $5)",
	.result = SPI_OK_INSERT,
	.nparameters = N_EVENT_COLUMNS,
	.types = {
		[EVENT_SYNC] = TEXTOID,
		[EVENT_AT] = TIMESTAMPTZOID,
		[EVENT_FAILURES] = INT4OID,
		[EVENT_TRIPS] = INT4OID,
		[EVENT_UNTIL] = TIMESTAMPTZOID
	}
};

/* Insert a row of breaker_events, which becomes the state of the breaker. */
static void
set_breaker(const Sync *sync, const Breaker *breaker)
{
	Datum		values[N_EVENT_COLUMNS] = {
		[EVENT_SYNC] = CStringGetTextDatum(sync->name),
		[EVENT_AT] = TimestampTzGetDatum(breaker->at),
		[EVENT_FAILURES] = Int32GetDatum(breaker->failures),
		[EVENT_TRIPS] = Int32GetDatum(breaker->trips),
		[EVENT_UNTIL] = TimestampTzGetDatum(breaker->until)
	};
	bool		nulls[N_EVENT_COLUMNS] = {[EVENT_UNTIL] = breaker->trips == 0};

	query_run(&insert_state_query, values, nulls);
}

/*
 * Count failed deliveries of a sync, and trip its breaker if necessary.  Needs an
 * SPI connection and the owner's rights.
 */
void
breaker_failed(const Sync *sync, int count)
{
	TimestampTz now;
	Breaker		breaker;

	if (sync->breaker == 0)
		return;
	take_turn(sync);
	now = GetCurrentTimestamp();
	breaker = get_breaker(sync);
	if (breaker.until <= now)
	{
		breaker.at = Max(now, breaker.at + 1);
		breaker.failures = pg_add_s32_overflow(breaker.failures, count, &breaker.failures) ?
			PG_INT32_MAX : breaker.failures;
		if (breaker.trips > 0 || breaker.failures >= sync->breaker)
		{
			breaker.until = now + Min(FIRST_BREAK << Min(breaker.trips, 10), LONGEST_BREAK);
			breaker.trips++;
			ereport(LOG_SERVER_ONLY,
					(errmsg_plural("circuit breaker of sync \"%s\" opened after %d failure",
								   "circuit breaker of sync \"%s\" opened after %d consecutive failures",
								   breaker.failures, sync->name, breaker.failures),
					 errdetail("The sync is paused until %s.", timestamptz_to_str(breaker.until))));
		}
		set_breaker(sync, &breaker);
	}
	end_turn(sync);
}

/*
 * Close the breaker of a sync, because a delivery succeeded.  Needs an SPI
 * connection and the owner's rights.
 */
void
breaker_succeeded(const Sync *sync)
{
	Breaker		breaker;

	if (sync->breaker == 0)
		return;
	take_turn(sync);
	breaker = get_breaker(sync);
	if (breaker.failures > 0)
	{
		if (breaker.trips > 0)
			ereport(LOG_SERVER_ONLY,
					(errmsg("circuit breaker of sync \"%s\" closed after a success", sync->name)));
		breaker.at = Max(GetCurrentTimestamp(), breaker.at + 1);
		breaker.failures = breaker.trips = 0;
		breaker.until = DT_NOBEGIN;
		set_breaker(sync, &breaker);
	}
	end_turn(sync);
}

/* ---- SQL ---- */

/*
 * end_breaker_pause(sync text) returns boolean
 *
 * Ends the pause that the breaker of a sync has begun, even if the transaction
 * that began the pause has not committed.  The breaker is half-open then.  Returns
 * false if there was no such pause.  Error 42704 if there is no such sync.
 * Strict.
 */
Datum
postalytics_end_breaker_pause(PG_FUNCTION_ARGS)
{
	const Sync *sync = find_sync(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	TimestampTz now;
	Breaker		breaker;
	bool		is_paused;

	if (sync->breaker == 0)
		PG_RETURN_BOOL(false);
	SPI_connect();
	take_turn(sync);
	now = GetCurrentTimestamp();
	breaker = get_breaker(sync);
	is_paused = breaker.until > now;
	if (is_paused)
	{
		breaker.at = Max(now, breaker.at + 1);
		breaker.until = now;
		set_breaker(sync, &breaker);
	}
	end_turn(sync);
	SPI_finish();
	PG_RETURN_BOOL(is_paused);
}
