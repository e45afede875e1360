/*
 * pause.c
 *		Reads and writes the pauses of a sync.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/query.h"
#include "catalog/pg_type.h"
#include "sync/breaker.h"
#include "sync/pause.h"
#include "sync/timeline.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Columns of pauses, as in pause.sql. */
enum
{
	PAUSES_SYNC, PAUSES_UNTIL, N_PAUSES_COLUMNS
};

static const TableColumn pauses_columns[N_PAUSES_COLUMNS] = {
	[PAUSES_SYNC] = COLUMN_NOT_NULL("sync", TEXTOID),
	[PAUSES_UNTIL] = COLUMN_NOT_NULL("until", TIMESTAMPTZOID),
};

static const Timeline pauses = {"pauses", "pauses_sync_until_idx", pauses_columns, N_PAUSES_COLUMNS};

/*
 * Return when the pause of a sync ends, including a pause by its breaker;
 * DT_NOBEGIN if the sync is not paused.
 */
TimestampTz
get_pause_end(const Sync *sync, TimestampTz now)
{
	TimestampTz until = DT_NOBEGIN;
	Breaker		breaker = get_breaker(sync);
	Lookup		lookup;

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	timeline_begin(&lookup, &pauses, GetActiveSnapshot(), sync, now);
	if (lookup_next(&lookup, BackwardScanDirection))
		until = DatumGetTimestampTz(timeline_value(&lookup, PAUSES_UNTIL));
	timeline_end(&lookup);
	PopActiveSnapshot();
	if (breaker.until > now)
		until = Max(until, breaker.until);
	return until;
}

/* Parameters of pause_query. */
enum
{
	PAUSE_SYNC, PAUSE_UNTIL, PAUSE_REASON, N_PAUSE
};

static SqlQuery pause_query = {
	.sql = "INSERT INTO postalytics.pauses (sync, until, reason)"
	" VALUES ($1, $2, left($3, 2000))",
	.result = SPI_OK_INSERT,
	.nparameters = N_PAUSE,
	.types = {[PAUSE_SYNC] = TEXTOID,[PAUSE_UNTIL] = TIMESTAMPTZOID,[PAUSE_REASON] = TEXTOID}
};

/*
 * Pause a sync until a time, for a reason (text).  Needs an SPI connection and
 * the owner's rights.
 */
void
insert_pause(const Sync *sync, TimestampTz until, Datum reason)
{
	Datum		values[N_PAUSE] = {
		[PAUSE_SYNC] = CStringGetTextDatum(sync->name),
		[PAUSE_UNTIL] = TimestampTzGetDatum(until),
		[PAUSE_REASON] = reason
	};

	query_run(&pause_query, values, NULL);
}
