/*
 * partition.c
 *		The months of events: which leaf an instant belongs to, and making it.
 */
#include "postalytics_status.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_ensure_partitions);

#define MAX_MONTH_YEAR	9999	/* for a name of four digits */

/*
 * The month's first instant, in UTC: leaves made by sessions in different
 * time zones must not overlap.
 */
TimestampTz
month_start(TimestampTz instant)
{
	struct pg_tm tm;
	fsec_t		fraction;

	if (TIMESTAMP_NOT_FINITE(instant) ||
		timestamp2tm(instant, NULL, &tm, &fraction, NULL, NULL) != 0 ||
		tm.tm_year < 1 || tm.tm_year > MAX_MONTH_YEAR)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("no month of events can hold instant %s",
						timestamptz_to_str(instant))));
	return (date2j(tm.tm_year, tm.tm_mon, 1) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;
}

static TimestampTz
next_month(TimestampTz month)
{
	return month_start(month + 31 * USECS_PER_DAY);
}

/* The leaf of a month that starts at this instant: events_2026_10. */
static void
leaf_name(TimestampTz month, char name[NAMEDATALEN])
{
	struct pg_tm tm;
	fsec_t		fraction;

	(void) timestamp2tm(month, NULL, &tm, &fraction, NULL, NULL);
	snprintf(name, NAMEDATALEN, "events_%04d_%02d", tm.tm_year, tm.tm_mon);
}

/* Is there such a leaf?  Error 42P07 if its name is taken by something else. */
static bool
leaf_exists(const char *name)
{
	Oid			relation = get_relname_relid(name, get_namespace_oid(EXTENSION_SCHEMA, false));
	HeapTuple	tuple;
	bool		is_partition;

	if (!OidIsValid(relation))
		return false;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	if (!HeapTupleIsValid(tuple))
		return false;
	is_partition = ((Form_pg_class) GETSTRUCT(tuple))->relispartition;
	ReleaseSysCache(tuple);
	if (!is_partition)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("table \"%s.%s\" is not a partition of events",
						EXTENSION_SCHEMA, name),
				 errhint("Attach it again, or rename it.")));
	return true;
}

/* Run one utility command built here from names that need no quoting. */
static void
run(const char *command)
{
	int			result = SPI_execute(command, false, 0);

	if (result != SPI_OK_UTILITY)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
}

/* A bound, spelled so that no setting of the session changes its meaning. */
static char *
bound(TimestampTz instant)
{
	struct pg_tm tm;
	fsec_t		fraction;

	(void) timestamp2tm(instant, NULL, &tm, &fraction, NULL, NULL);
	return psprintf("'%04d-%02d-%02d 00:00:00+00'", tm.tm_year, tm.tm_mon, tm.tm_mday);
}

static void
create_leaf(const char *name, TimestampTz month)
{
	SPI_connect();
	run(psprintf("CREATE TABLE postalytics.%s ("
				 " LIKE postalytics.events INCLUDING DEFAULTS INCLUDING STORAGE,"
				 " PRIMARY KEY (piece_id, status, occurred_at))", name));
	run(psprintf("ALTER TABLE postalytics.events ATTACH PARTITION postalytics.%s"
				 " FOR VALUES FROM (%s) TO (%s)",
				 name, bound(month), bound(next_month(month))));
	SPI_finish();
}

/*
 * Make sure that the leaf for an instant is there.  Must be called before the
 * statement that inserts into events starts.  Only where the leaf is missing
 * does it lock: SHARE UPDATE EXCLUSIVE on events, until the transaction ends,
 * so that of two sessions in need of one month the second finds it made.
 */
void
ensure_month(TimestampTz instant)
{
	TimestampTz month = month_start(instant);
	char		name[NAMEDATALEN];

	leaf_name(month, name);
	if (leaf_exists(name))
		return;
	LockRelationOid(extension_relation("events"), ShareUpdateExclusiveLock);
	if (!leaf_exists(name))
		create_leaf(name, month);
}

/*
 * ensure_partitions("from" timestamptz, until timestamptz) returns integer
 *
 * Makes the missing months of events that hold instants from "from" on to
 * before until, and counts them.  Strict.  Errors: 22023 where until is not after
 * "from", 22008 for an instant that no month can hold.
 */
Datum
postalytics_ensure_partitions(PG_FUNCTION_ARGS)
{
	TimestampTz from = PG_GETARG_TIMESTAMPTZ(0);
	TimestampTz until = PG_GETARG_TIMESTAMPTZ(1);
	int32		made = 0;

	if (until <= from)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"until\" must be after \"from\"")));
	for (TimestampTz month = month_start(from); month < until; month = next_month(month))
	{
		char		name[NAMEDATALEN];

		leaf_name(month, name);
		if (!leaf_exists(name))
		{
			ensure_month(month);
			made++;
		}
	}
	PG_RETURN_INT32(made);
}
