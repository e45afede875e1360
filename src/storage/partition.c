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
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/relcache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(postalytics_ensure_partitions);
PG_FUNCTION_INFO_V1(postalytics_ensure_days);

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
	TimestampTz (*start) (TimestampTz time);
	TimestampTz (*next) (TimestampTz start);
	Datum		(*key) (TimestampTz instant);
	char	   *(*bounds) (TimestampTz start);
} Parent;

static Datum
instant_key(TimestampTz instant)
{
	return TimestampTzGetDatum(instant);
}

static char *
month_bounds(TimestampTz month)
{
	return psprintf("FROM (%s) TO (%s)",
					date_of(month, "'%04d-%02d-%02d 00:00:00+00'"),
					date_of(next_month(month), "'%04d-%02d-%02d 00:00:00+00'"));
}

static TimestampTz
day_start(TimestampTz instant)
{
	return instant - instant % USECS_PER_DAY;
}

static TimestampTz
next_day(TimestampTz day)
{
	return day + USECS_PER_DAY;
}

static Datum
day_key(TimestampTz instant)
{
	return DateADTGetDatum(instant / USECS_PER_DAY);
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
	.start = month_start,
	.next = next_month,
	.key = instant_key,
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
	.start = day_start,
	.next = next_day,
	.key = day_key,
	.bounds = day_bounds
};

/* The name that an instant's leaf has, or is to have. */
static char *
leaf_name(const Parent *parent, TimestampTz instant)
{
	return date_of(parent->start(instant), parent->leaf_format);
}

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

/*
 * The leaf that holds a value of the key, of an open and locked parent; 0 if
 * there is none.
 */
static Oid
leaf_of(Relation parent, Datum value)
{
	PartitionKey key = RelationGetPartitionKey(parent);
	PartitionDesc leaves = RelationGetPartitionDesc(parent, true);
	bool		equal;
	int			bound;
	int			leaf = -1;

	if (leaves->nparts == 0)
		return InvalidOid;
	if (key->strategy == PARTITION_STRATEGY_LIST)
	{
		bound = partition_list_bsearch(key->partsupfunc, key->partcollation,
									   leaves->boundinfo, value, &equal);
		if (bound >= 0 && equal)
			leaf = leaves->boundinfo->indexes[bound];
	}
	else
	{
		bound = partition_range_datum_bsearch(key->partsupfunc, key->partcollation,
											  leaves->boundinfo, 1, &value, &equal);
		leaf = leaves->boundinfo->indexes[bound + 1];
	}
	return leaf < 0 ? InvalidOid : leaves->oids[leaf];
}

/* True if there is a leaf for a time, be it ours or one made by hand. */
static bool
has_leaf(const Parent *parent, TimestampTz instant)
{
	Relation	relation = table_open(extension_relation(parent->name), AccessShareLock);
	bool		has = OidIsValid(leaf_of(relation, parent->key(instant)));

	/* A lock that was kept would be in the way of who drops another leaf. */
	table_close(relation, has ? NoLock : AccessShareLock);
	return has;
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

/* True if there is a leaf for a time, including one that was just committed. */
static bool
has_new_leaf(const Parent *parent, TimestampTz time)
{
	AcceptInvalidationMessages();
	/* A message that arrives while the entry is being built may leave it stale. */
	RelationCacheInvalidateEntry(extension_relation(parent->name));
	return has_leaf(parent, time);
}

/*
 * Lock a partitioned table to create a leaf.  Does not queue for the lock,
 * because later requests of other sessions would wait behind this one.  False,
 * and no lock, if another session has created the leaf meanwhile.  Error 55P03
 * after lock_timeout, or after MAX_LOCK_WAIT if that is not set.
 */
#define MAX_LOCK_WAIT	10000	/* milliseconds */

static bool
lock_parent(const Parent *parent, Oid relation, TimestampTz time)
{
	int			lock_wait = LockTimeout > 0 ? LockTimeout : MAX_LOCK_WAIT;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), lock_wait);

	while (!ConditionalLockRelationOid(relation, ShareUpdateExclusiveLock))
	{
		if (GetCurrentTimestamp() >= deadline)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("could not create a partition of \"%s.%s\" within %d ms",
							EXTENSION_SCHEMA, parent->name, lock_wait),
					 errdetail("Another transaction holds a conflicting lock on the table."),
					 errhint("Try again after that transaction, which pg_locks shows, has ended.")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (has_new_leaf(parent, time))
			return false;
	}
	return true;
}

/*
 * Make sure that the leaf for a time is there.  Must be called before the
 * statement that inserts into the parent starts.  Only where the leaf is missing
 * does it lock: SHARE UPDATE EXCLUSIVE on the parent, until the transaction ends,
 * so that of two sessions in need of one leaf the second finds it made.  That it
 * is seen in the catalog says nothing before: who commits it is seen first, then
 * tells the caches, from which rows are routed, and then lets go of the lock.
 */
static LeafState
ensure_leaf(const Parent *parent, TimestampTz time)
{
	char	   *leaf;

	if (has_leaf(parent, time))
		return LEAF_THERE;
	leaf = leaf_name(parent, time);
	if (look_up(leaf) == NAME_TAKEN)
		return LEAF_IN_THE_WAY;
	if (!lock_parent(parent, extension_relation(parent->name), time) ||
		has_new_leaf(parent, time))
		return LEAF_THERE;
	if (look_up(leaf) != NAME_FREE)
		return LEAF_IN_THE_WAY;
	create_leaf(parent, leaf, parent->start(time));
	return LEAF_MADE;
}

/* The same, was it made?  Error 42P07 if something has its name. */
static bool
make_leaf(const Parent *parent, TimestampTz instant)
{
	LeafState	state = ensure_leaf(parent, instant);

	if (state == LEAF_IN_THE_WAY)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("table \"%s.%s\" is not a partition of %s", EXTENSION_SCHEMA,
						leaf_name(parent, instant), parent->name),
				 errhint("Attach it again, or rename it.")));
	return state == LEAF_MADE;
}

/* Make sure that events have a leaf for a time.  Error 55P03 if the lock is not available. */
LeafState
ensure_month(TimestampTz time)
{
	return ensure_leaf(&events, time);
}

/*
 * Let a background worker create the missing months, so that nobody has to wait
 * for this transaction.  Months that it cannot create are left to ensure_month.
 */
void
make_months_in_worker(const TimestampTz *times, int count)
{
	TimestampTz *missing = palloc(count * sizeof(TimestampTz));
	int			nmissing = 0;

	for (int i = 0; i < count; i++)
		if (!has_leaf(&events, times[i]) && look_up(leaf_name(&events, times[i])) != NAME_TAKEN)
			missing[nmissing++] = times[i];
	if (nmissing > 0 && make_leaves_in_worker(LEAF_MONTH, missing, nmissing))
		(void) has_new_leaf(&events, missing[0]);
	pfree(missing);
}

/* The name that an instant's month has, or is to have. */
char *
month_name(TimestampTz instant)
{
	return leaf_name(&events, instant);
}

/* The leaf of events, an open and locked relation, for an instant; 0 if there is none. */
Oid
month_of_events(Relation relation, TimestampTz instant)
{
	return leaf_of(relation, instant_key(instant));
}

/* How long to wait for another transaction that locks deliveries, in milliseconds. */
#define DAY_LOCK_WAIT	100

/* For how long not to wait again after such a wait has failed. */
#define DAY_PAUSE		(10 * USECS_PER_SEC)

/*
 * Make sure that deliveries finished at a time have a partition; false if
 * another transaction holds a conflicting lock on deliveries.  Creates the next
 * day's partition too, so that few sessions need one at midnight.  Error 42P07
 * if another table has the partition's name.
 */
bool
ensure_day(TimestampTz time)
{
	static TimestampTz pause_until = DT_NOBEGIN;
	const TimestampTz days[] = {time, time + USECS_PER_DAY};
	Oid			relation;
	int			tries = time < pause_until ? 1 : DAY_LOCK_WAIT / 10;

	if (has_leaf(&deliveries, time))
		return true;
	relation = extension_relation(deliveries.name);
	while (!ConditionalLockRelationOid(relation, ShareUpdateExclusiveLock))
	{
		if (--tries <= 0)
		{
			pause_until = time + DAY_PAUSE;
			return false;
		}
		pg_usleep(10000L);
		if (has_new_leaf(&deliveries, time))
			return true;
	}
	UnlockRelationOid(relation, ShareUpdateExclusiveLock);
	if (make_leaves_in_worker(LEAF_DAY, days, lengthof(days)) && has_new_leaf(&deliveries, time))
		return true;
	if (!ConditionalLockRelationOid(relation, ShareUpdateExclusiveLock))
		return has_new_leaf(&deliveries, time);
	for (int i = 0; i < lengthof(days); i++)
		(void) make_leaf(&deliveries, days[i]);
	return true;
}

/* Make a leaf of a kind, for the background worker that make_leaves_in_worker starts. */
void
ensure_leaf_of(LeafKind kind, TimestampTz time)
{
	(void) ensure_leaf(kind == LEAF_MONTH ? &events : &deliveries, time);
}

/* Make the missing leaves that hold times from "from" on to before until; how many. */
static int32
make_leaves(const Parent *parent, TimestampTz from, TimestampTz until)
{
	int32		made = 0;

	if (until <= from)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"until\" must be after \"from\"")));
	(void) month_start(TIMESTAMP_NOT_FINITE(until) ? until : until - 1);
	for (TimestampTz start = parent->start(from); start < until; start = parent->next(start))
		made += make_leaf(parent, start);
	return made;
}

/*
 * ensure_partitions("from" timestamptz, until timestamptz) returns integer
 *
 * Makes the missing months of events that hold times from "from" on to before
 * until, and counts them.  Strict.  Locks: SHARE UPDATE EXCLUSIVE on events if
 * one is missing.  Errors: 22023 if until is not after "from", 22008 for a
 * time that no month can hold, 42P07 for one whose name is taken, 55P03 if the
 * lock cannot be had in time.
 */
Datum
postalytics_ensure_partitions(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(make_leaves(&events, PG_GETARG_TIMESTAMPTZ(0), PG_GETARG_TIMESTAMPTZ(1)));
}

/* ensure_days("from" timestamptz, until timestamptz) returns integer: the same for deliveries */
Datum
postalytics_ensure_days(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(make_leaves(&deliveries, PG_GETARG_TIMESTAMPTZ(0), PG_GETARG_TIMESTAMPTZ(1)));
}
