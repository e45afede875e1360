/*
 * partition.c
 *		The leaves of events and deliveries: which one an instant belongs to,
 *		and making it.
 */
#include "postalytics_status.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_ensure_partitions);

#define MAX_MONTH_YEAR	9999	/* for a name of four digits */

const TableColumn events_columns[N_EVENTS_COLUMNS] = {
	[EVENTS_EVENT_ID] = COLUMN_NOT_NULL("event_id", INT8OID),
	[EVENTS_PIECE_ID] = COLUMN_NOT_NULL("piece_id", TEXTOID),
	[EVENTS_STATUS] = COLUMN_NOT_NULL("status", ANYENUMOID),
	[EVENTS_OCCURRED_AT] = COLUMN_NOT_NULL("occurred_at", TIMESTAMPTZOID),
	[EVENTS_RECEIVED_AT] = COLUMN_NOT_NULL("received_at", TIMESTAMPTZOID),
	[EVENTS_ACCOUNT] = COLUMN("account", TEXTOID),
	[EVENTS_CAMPAIGN_ID] = COLUMN("campaign_id", TEXTOID),
	[EVENTS_PAYLOAD] = COLUMN("payload", JSONOID),
};

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

/* A date, spelled so that no setting of the session changes its meaning. */
static char *
date_of(TimestampTz instant, const char *format)
{
	struct pg_tm tm;
	fsec_t		fraction;

	(void) timestamp2tm(instant, NULL, &tm, &fraction, NULL, NULL);
	return psprintf(format, tm.tm_year, tm.tm_mon, tm.tm_mday);
}

/* ---- leaves ---- */

/* A partitioned table of ours, and what its leaves are like. */
typedef struct Parent
{
	const char *name;
	const char *leaf_format;	/* of a leaf's name, given year, month and day */
	const char *finish_leaf;	/* given its name in each %1$s */
	char	   *(*bounds) (TimestampTz start);
} Parent;

static char *
month_bounds(TimestampTz month)
{
	return psprintf("FROM (%s) TO (%s)",
					date_of(month, "'%04d-%02d-%02d 00:00:00+00'"),
					date_of(next_month(month), "'%04d-%02d-%02d 00:00:00+00'"));
}

static char *
day_bounds(TimestampTz day)
{
	return psprintf("IN (%s)", date_of(day, "'%04d-%02d-%02d'"));
}

static const Parent events = {
	.name = "events",
	.leaf_format = "events_%04d_%02d",
	.finish_leaf = "ALTER TABLE postalytics.%1$s ADD PRIMARY KEY (piece_id, status, occurred_at)",
	.bounds = month_bounds
};

/*
 * Finished deliveries come by the hundred thousand, in the order of their ids
 * more or less: BRIN costs nothing, where a key's index would cost as much as
 * the row.
 */
static const Parent deliveries = {
	.name = "deliveries",
	.leaf_format = "deliveries_%04d_%02d_%02d",
	.finish_leaf = "CREATE INDEX ON postalytics.%1$s (piece_id);"
	"CREATE INDEX ON postalytics.%1$s USING brin (delivery_id, finished_at) WITH (autosummarize = on);"
	"CREATE INDEX ON postalytics.%1$s (sync, failed_at) WHERE failed_at IS NOT NULL;"
	"ALTER TABLE postalytics.%1$s REPLICA IDENTITY FULL",
	.bounds = day_bounds
};

typedef enum LeafName
{
	NAME_FREE,
	NAME_OF_LEAF,
	NAME_TAKEN					/* by something that is not a partition */
} LeafName;

static LeafName
look_up(const char *leaf)
{
	Oid			relation = get_relname_relid(leaf, get_namespace_oid(EXTENSION_SCHEMA, false));
	HeapTuple	tuple;
	LeafName	name;

	if (!OidIsValid(relation))
		return NAME_FREE;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	if (!HeapTupleIsValid(tuple))
		return NAME_FREE;
	name = ((Form_pg_class) GETSTRUCT(tuple))->relispartition ? NAME_OF_LEAF : NAME_TAKEN;
	ReleaseSysCache(tuple);
	return name;
}

/* Is there such a leaf?  Error 42P07 if its name is taken by something else. */
static bool
leaf_exists(const Parent *parent, const char *leaf)
{
	LeafName	name = look_up(leaf);

	if (name == NAME_TAKEN)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("table \"%s.%s\" is not a partition of %s",
						EXTENSION_SCHEMA, leaf, parent->name),
				 errhint("Attach it again, or rename it.")));
	return name == NAME_OF_LEAF;
}

/* Run utility commands built here from names that need no quoting. */
static void
run(const char *commands)
{
	int			result = SPI_execute(commands, false, 0);

	if (result != SPI_OK_UTILITY)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(result));
}

static void
create_leaf(const Parent *parent, const char *leaf, TimestampTz start)
{
	SPI_connect();
	run(psprintf("CREATE TABLE postalytics.%s"
				 " (LIKE postalytics.%s INCLUDING DEFAULTS INCLUDING STORAGE"
				 " INCLUDING CONSTRAINTS INCLUDING GENERATED)",
				 leaf, parent->name));
	run(psprintf(parent->finish_leaf, leaf));
	run(psprintf("ALTER TABLE postalytics.%s ATTACH PARTITION postalytics.%s FOR VALUES %s",
				 parent->name, leaf, parent->bounds(start)));
	SPI_finish();
}

/*
 * Make sure that the leaf that starts at an instant is there; was it made?
 * Must be called before the statement that inserts into the parent starts.
 * Only where the leaf is missing does it lock: SHARE UPDATE EXCLUSIVE on the
 * parent, until the transaction ends, so that of two sessions in need of one
 * leaf the second finds it made.
 */
static bool
ensure_leaf(const Parent *parent, TimestampTz start)
{
	char	   *leaf = date_of(start, parent->leaf_format);

	if (leaf_exists(parent, leaf))
		return false;
	LockRelationOid(extension_relation(parent->name), ShareUpdateExclusiveLock);
	if (leaf_exists(parent, leaf))
		return false;
	create_leaf(parent, leaf, start);
	return true;
}

/* Is there a leaf of events for an instant, be it a month or one made by hand? */
static bool
has_month(TimestampTz instant)
{
	Relation	parent = table_open(extension_relation(events.name), AccessShareLock);
	bool		has = OidIsValid(month_of_events(parent, instant));

	table_close(parent, NoLock);
	return has;
}

/* Make sure that the leaf of events for an instant is there. */
bool
ensure_month(TimestampTz instant)
{
	return !has_month(instant) && ensure_leaf(&events, month_start(instant));
}

/* Why a month cannot be made, for a reject; NULL if it is there or can be. */
const char *
month_in_the_way(TimestampTz instant)
{
	char	   *leaf;

	if (has_month(instant))
		return NULL;
	leaf = date_of(month_start(instant), events.leaf_format);
	if (look_up(leaf) != NAME_TAKEN)
		return NULL;
	return psprintf("its month was detached: table \"%s.%s\"", EXTENSION_SCHEMA, leaf);
}

static TimestampTz
day_start(TimestampTz instant)
{
	return instant - instant % USECS_PER_DAY;
}

/* Is there a leaf for deliveries finished at an instant? */
bool
has_day(TimestampTz instant)
{
	return leaf_exists(&deliveries, date_of(day_start(instant), deliveries.leaf_format));
}

/* Make sure that there is. */
bool
ensure_day(TimestampTz instant)
{
	return ensure_leaf(&deliveries, day_start(instant));
}

/*
 * The leaf of events, an open and locked relation, that holds an instant; 0 if
 * there is none.
 */
Oid
month_of_events(Relation events, TimestampTz instant)
{
	PartitionKey key = RelationGetPartitionKey(events);
	PartitionDesc months = RelationGetPartitionDesc(events, true);
	Datum		value = TimestampTzGetDatum(instant);
	bool		equal;
	int			bound;
	int			month;

	if (months->nparts == 0)
		return InvalidOid;
	bound = partition_range_datum_bsearch(key->partsupfunc, key->partcollation,
										  months->boundinfo, 1, &value, &equal);
	month = months->boundinfo->indexes[bound + 1];
	return month < 0 ? InvalidOid : months->oids[month];
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
	(void) month_start(TIMESTAMP_NOT_FINITE(until) ? until : until - 1);
	for (TimestampTz month = month_start(from); month < until; month = next_month(month))
		made += ensure_month(month);
	PG_RETURN_INT32(made);
}
