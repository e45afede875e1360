/*
 * pace.c
 *		Enforces the limits of a sync: its rate, max_leased, and a single lease
 *		while its circuit breaker is half-open.
 *
 * A sync is paced if it has a rate, max_leased or a breaker.  fetch then holds the
 * short-term lock of the sync (turn.c) from pace_begin, which computes how many
 * deliveries may be leased, to pace_end, which records how many were leased.  A
 * fetch that is rolled back still counts towards the rate, because its worker may
 * already have called the CRM.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/query.h"
#include "catalog/pg_type.h"
#include "sync/breaker.h"
#include "sync/pace.h"
#include "sync/timeline.h"
#include "sync/turn.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Columns of recent_leases and in_flight, as in pace.sql. */
enum
{
	RECENT_LEASE_SYNC, RECENT_LEASE_AT, RECENT_LEASE_AMOUNT, N_RECENT_LEASE_COLUMNS
};

static const TableColumn recent_lease_columns[N_RECENT_LEASE_COLUMNS] = {
	[RECENT_LEASE_SYNC] = COLUMN_NOT_NULL("sync", TEXTOID),
	[RECENT_LEASE_AT] = COLUMN_NOT_NULL("at", TIMESTAMPTZOID),
	[RECENT_LEASE_AMOUNT] = COLUMN_NOT_NULL("amount", INT4OID),
};

static const Timeline recent_leases = {"recent_leases", "recent_leases_sync_at_idx", recent_lease_columns, N_RECENT_LEASE_COLUMNS};

enum
{
	FLIGHT_DELIVERY_ID, FLIGHT_SYNC, FLIGHT_UNTIL, N_FLIGHT_COLUMNS
};

static const TableColumn in_flight_columns[N_FLIGHT_COLUMNS] = {
	[FLIGHT_DELIVERY_ID] = COLUMN_NOT_NULL("delivery_id", INT8OID),
	[FLIGHT_SYNC] = COLUMN_NOT_NULL("sync", TEXTOID),
	[FLIGHT_UNTIL] = COLUMN_NOT_NULL("until", TIMESTAMPTZOID),
};

static const Timeline in_flight = {"in_flight", "in_flight_sync_until_idx", in_flight_columns, N_FLIGHT_COLUMNS};

/* True if the sync is paced. */
bool
is_paced(const Sync *sync)
{
	return sync->rate > 0 || sync->max_leased > 0 || sync->breaker > 0;
}

/*
 * Return how many deliveries of a sync may be leased at a time; 0 for any
 * number.
 */
static int
get_max_leased(const Sync *sync, const Breaker *breaker)
{
	return breaker->trips > 0 ? 1 : sync->max_leased;
}

/*
 * Return how many more deliveries the rate of a sync allows now.  If the result
 * is 0, set *next to the time at which the rate will allow another delivery.
 *
 * Rows of aborted transactions count, too, until VACUUM removes them.
 */
static int
allowed_by_rate(const Sync *sync, TimestampTz now, TimestampTz *next)
{
	Lookup		lookup;
	int64		sum = 0;

	timeline_begin(&lookup, &recent_leases, SnapshotAny, sync, now - sync->per);
	while (sum < sync->rate && lookup_next(&lookup, BackwardScanDirection))
	{
		TimestampTz at = DatumGetTimestampTz(timeline_value(&lookup, RECENT_LEASE_AT));

		if (at > now)
			continue;			/* the clock was set back */
		sum += DatumGetInt32(timeline_value(&lookup, RECENT_LEASE_AMOUNT));
		*next = at + sync->per;
	}
	timeline_end(&lookup);
	return sum < sync->rate ? sync->rate - sum : 0;
}

/*
 * Return how many more deliveries of a sync may be leased now, if at most max
 * may be leased at a time.  If the result is 0, set *next to the time at which
 * the first lease ends.
 */
static int
allowed_by_max_leased(const Sync *sync, int max, TimestampTz now, TimestampTz *next)
{
	SnapshotData dirty;
	Lookup		lookup;
	int			leased = 0;

	InitDirtySnapshot(dirty);
	timeline_begin(&lookup, &in_flight, &dirty, sync, now);
	while (leased < max && lookup_next(&lookup, ForwardScanDirection))
		if (leased++ == 0)
			*next = DatumGetTimestampTz(timeline_value(&lookup, FLIGHT_UNTIL));
	timeline_end(&lookup);
	return Max(max - leased, 0);
}

/*
 * Return how many deliveries of a sync may be leased now, at most batch.  If the
 * result is 0, set *next to the time from which a delivery may be leased;
 * otherwise, set it to DT_NOBEGIN.
 */
static int
count_allowed(const Sync *sync, TimestampTz now, int batch, TimestampTz *next)
{
	TimestampTz each = DT_NOBEGIN;
	Breaker		breaker = get_breaker(sync);
	int			max_leased = get_max_leased(sync, &breaker);

	*next = DT_NOBEGIN;
	if (breaker.until > now)
	{
		/* The breaker may have tripped while fetch waited for the lock. */
		*next = breaker.until;
		return 0;
	}
	if (sync->rate > 0)
		batch = Min(batch, allowed_by_rate(sync, now, &each));
	if (batch == 0)
		*next = each;
	if (max_leased > 0)
	{
		int			free = allowed_by_max_leased(sync, max_leased, now, &each);

		if (free == 0)
			*next = Max(*next, each);
		batch = Min(batch, free);
	}
	return batch;
}

/*
 * Return how many deliveries of a sync may be leased, at most batch.  If the
 * sync is paced, also take its short-term lock, which pace_end releases.
 */
int
pace_begin(const Sync *sync, int batch)
{
	TimestampTz next;

	if (!is_paced(sync))
		return batch;
	take_turn(sync);
	return count_allowed(sync, GetCurrentTimestamp(), batch, &next);
}

/* Parameters of lease_query. */
enum
{
	LEASE_QUERY_SYNC, LEASE_QUERY_AT, LEASE_QUERY_AMOUNT, N_LEASE_QUERY
};

static SqlQuery lease_query = {
	.sql = "INSERT INTO postalytics.recent_leases (sync, at, amount)"
	" VALUES ($1, $2, $3)",
	.result = SPI_OK_INSERT,
	.nparameters = N_LEASE_QUERY,
	.types = {[LEASE_QUERY_SYNC] = TEXTOID,[LEASE_QUERY_AT] = TIMESTAMPTZOID,[LEASE_QUERY_AMOUNT] = INT4OID}
};

/* Parameters of flight_query. */
enum
{
	FLIGHT_QUERY_TIDS, FLIGHT_QUERY_UNTIL, N_FLIGHT_QUERY
};

/*
 * ON CONFLICT replaces the row of an earlier lease that has expired.  Normally the
 * query does not wait, because this transaction has locked the deliveries.  It can
 * wait for limits_changed() or forget_limits(), which change rows of in_flight
 * without locking the deliveries.
 */
static SqlQuery flight_query = {
	.sql = "INSERT INTO postalytics.in_flight (delivery_id, sync, until)"
	" SELECT d.delivery_id, d.sync, $2"
	" FROM postalytics.deliveries_unfinished AS d"
	" WHERE d.ctid = ANY ($1)"
	" ON CONFLICT (delivery_id) DO UPDATE"
	" SET sync = excluded.sync,"
	"     until = excluded.until",
	.result = SPI_OK_INSERT,
	.nparameters = N_FLIGHT_QUERY,
	.types = {[FLIGHT_QUERY_TIDS] = TIDARRAYOID,[FLIGHT_QUERY_UNTIL] = TIMESTAMPTZOID}
};

/*
 * Record that deliveries of a paced sync, which are locked and given by their
 * ctids, are leased until a time.  Then release the short-term lock of the sync.
 * Needs an SPI connection and the owner's rights.
 */
void
pace_end(const Sync *sync, Datum tids, int count, TimestampTz until)
{
	Breaker		breaker = get_breaker(sync);

	if (count > 0 && sync->rate > 0)
	{
		Datum		values[N_LEASE_QUERY] = {
			[LEASE_QUERY_SYNC] = CStringGetTextDatum(sync->name),
			[LEASE_QUERY_AT] = TimestampTzGetDatum(GetCurrentTimestamp()),
			[LEASE_QUERY_AMOUNT] = Int32GetDatum(count)
		};

		query_run(&lease_query, values, NULL);
	}
	if (count > 0 && get_max_leased(sync, &breaker) > 0)
	{
		Datum		values[N_FLIGHT_QUERY] = {
			[FLIGHT_QUERY_TIDS] = tids,
			[FLIGHT_QUERY_UNTIL] = TimestampTzGetDatum(until)
		};

		query_run(&flight_query, values, NULL);
	}
	end_turn(sync);
}

/*
 * Return when the limits of a sync will allow a delivery to be leased, as far as
 * is known; DT_NOBEGIN if they allow it now.
 */
TimestampTz
pace_next(const Sync *sync, TimestampTz now)
{
	TimestampTz next;

	(void) count_allowed(sync, now, 1, &next);
	return next;
}

static SqlQuery release_query = {
	.sql = "DELETE FROM postalytics.in_flight AS f"
	" USING postalytics.deliveries_unfinished AS d"
	" WHERE d.ctid = ANY ($1)"
	"   AND f.delivery_id = d.delivery_id",
	.result = SPI_OK_DELETE,
	.nparameters = 1,
	.types = {TIDARRAYOID}
};

/*
 * Record that deliveries of a sync, which are locked and given by their ctids,
 * are no longer leased.  Needs an SPI connection and the owner's rights.
 */
void
pace_release(const Sync *sync, Datum tids)
{
	if (sync->max_leased > 0 || sync->breaker > 0)
		query_run(&release_query, &tids, NULL);
}
