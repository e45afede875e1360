/*
 * pause.c
 *		Reads and writes the pauses of a sync.
 */
#include "postgres.h"

#include "base/query.h"
#include "catalog/pg_type.h"
#include "sync/breaker.h"
#include "sync/pause.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* Parameters of pause_end_query. */
enum
{
	PAUSE_END_SYNC, PAUSE_END_NOW, N_PAUSE_END
};

static SqlQuery pause_end_query = {
	.sql = "SELECT p.until"
	" FROM postalytics.pauses AS p"
	" WHERE p.sync = $1"
	"   AND p.until > $2"
	" ORDER BY p.until DESC"
	" LIMIT 1",
	.result = SPI_OK_SELECT,
	.nparameters = N_PAUSE_END,
	.types = {[PAUSE_END_SYNC] = TEXTOID,[PAUSE_END_NOW] = TIMESTAMPTZOID}
};

/*
 * Return when the pause of a sync, be it by its breaker, ends; DT_NOBEGIN if it
 * is not paused.  Needs
 * an SPI connection, as the owner.
 */
TimestampTz
get_pause_end(const Sync *sync, TimestampTz now)
{
	Datum		values[N_PAUSE_END] = {
		[PAUSE_END_SYNC] = CStringGetTextDatum(sync->name),
		[PAUSE_END_NOW] = TimestampTzGetDatum(now)
	};
	TimestampTz until = DT_NOBEGIN;
	Breaker		breaker = get_breaker(sync);
	bool		isnull;

	query_run(&pause_end_query, values, NULL);
	if (SPI_processed > 0)
		until = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
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
 * Pause a sync until a time, for a reason (text).  Needs an SPI connection, as
 * the owner.
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
