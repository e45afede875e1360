/*
 * partition.c
 *		The partitions of events (months) and deliveries (days), which are called
 *		leaves: names, lookup by time, and creation.
 *
 * A leaf must exist before the statement that inserts into its parent starts.
 * months.c ensures that for ingest, and ensure_partition.c for ack and fetch.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "base/extension.h"
#include "base/query.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/tablespace.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "pgstat.h"
#include "rights/settings.h"
#include "storage/latch.h"
#include "storage/partition.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#define MAX_MONTH_YEAR	9999	/* names have four digits for the year */

/*
 * Return the start of the month that contains a time.  Months are those of
 * UTC, so that leaves created by sessions in different time zones do not
 * overlap.  Error 22008 if no leaf can hold the time.
 */
TimestampTz
month_start(TimestampTz time)
{
	struct pg_tm tm;
	fsec_t		fraction;

	if (TIMESTAMP_NOT_FINITE(time) ||
		timestamp2tm(time, NULL, &tm, &fraction, NULL, NULL) != 0 ||
		tm.tm_year < 1 || tm.tm_year > MAX_MONTH_YEAR)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range for a partition: \"%s\"", timestamptz_to_str(time))));
	return (date2j(tm.tm_year, tm.tm_mon, 1) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;
}

/* Given the start of a month, return the start of the next month. */
TimestampTz
next_month(TimestampTz month)
{
	return month_start(month + 31 * USECS_PER_DAY);
}

/* Format a date in a way that does not depend on the session's settings. */
static char *
date_of(TimestampTz time, const char *format)
{
	struct pg_tm tm;
	fsec_t		fraction;

	(void) timestamp2tm(time, NULL, &tm, &fraction, NULL, NULL);
	return psprintf(format, tm.tm_year, tm.tm_mon, tm.tm_mday);
}

/* ---- the two kinds of leaves ---- */

/*
 * A partitioned table, and the properties of its leaves.  start returns the
 * start of the leaf for a time.  Given that start, next returns the start of
 * the next leaf.
 */
typedef struct Parent
{
	const char *name;
	const char *leaf_format;	/* format of names: year, month and day */
	const char *finish_leaf;	/* commands, in which %1$s stands for the
								 * leaf's name */
	TimestampTz (*start) (TimestampTz time);
	TimestampTz (*next) (TimestampTz start);
	Datum		(*key) (TimestampTz time);	/* value of the partition key */
	char	   *(*bounds) (TimestampTz start);
} Parent;

static Datum
month_key(TimestampTz time)
{
	return TimestampTzGetDatum(time);
}

static char *
month_bounds(TimestampTz month)
{
	return psprintf("FROM (%s) TO (%s)",
					date_of(month, "'%04d-%02d-%02d 00:00:00+00'"),
					date_of(next_month(month), "'%04d-%02d-%02d 00:00:00+00'"));
}

static TimestampTz
day_start(TimestampTz time)
{
	return time - time % USECS_PER_DAY;
}

static TimestampTz
next_day(TimestampTz day)
{
	return day + USECS_PER_DAY;
}

static Datum
day_key(TimestampTz time)
{
	return DateADTGetDatum(time / USECS_PER_DAY);
}

static char *
day_bounds(TimestampTz day)
{
	return psprintf("IN (%s)", date_of(day, "'%04d-%02d-%02d'"));
}

static const Parent parents[] = {
	[LEAF_MONTH] = {
		.name = "events",
		.leaf_format = "events_%04d_%02d",
		.finish_leaf = "ALTER TABLE postalytics.%1$s ADD PRIMARY KEY (piece_id, account, status, occurred_at)",
		.start = month_start,
		.next = next_month,
		.key = month_key,
		.bounds = month_bounds
	},

	/*
	 * Hundreds of thousands of finished deliveries are inserted at a time,
	 * roughly in the order of their ids.  A BRIN index costs almost nothing,
	 * while a primary key would cost as much as the row.
	 */
	[LEAF_DAY] = {
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
	}
};

/* Return the OID of a partitioned table. */
static Oid
parent_relation(LeafKind kind)
{
	return extension_relation(parents[kind].name);
}

/* Return the name that the leaf for a time has, or would have. */
char *
leaf_name(LeafKind kind, TimestampTz time)
{
	return date_of(parents[kind].start(time), parents[kind].leaf_format);
}

/* ---- finding a leaf ---- */

typedef enum LeafName
{
	NAME_FREE,
	NAME_OF_LEAF,
	NAME_TAKEN					/* a relation that is not a partition has the
								 * name */
} LeafName;

static LeafName
look_up_name(const char *leaf)
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
 * True if a relation that is not a partition has the name of the leaf for a
 * time.
 */
bool
leaf_name_is_taken(LeafKind kind, TimestampTz time)
{
	return look_up_name(leaf_name(kind, time)) == NAME_TAKEN;
}

/*
 * Return the leaf for a time, or InvalidOid if there is none.  A leaf that a
 * user has created is also found.  The caller must have opened and locked the
 * parent.
 */
Oid
leaf_of(Relation parent, LeafKind kind, TimestampTz time)
{
	PartitionKey key = RelationGetPartitionKey(parent);
	PartitionDesc leaves = RelationGetPartitionDesc(parent, true);
	Datum		value = parents[kind].key(time);
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

/*
 * True if there is a leaf for a time.  Locks: ACCESS SHARE on the parent, which
 * is kept until the transaction ends if there is a leaf.  If there is none, the
 * lock is released, because it would block a session that drops another leaf.
 */
bool
has_leaf(LeafKind kind, TimestampTz time)
{
	Relation	parent = table_open(parent_relation(kind), AccessShareLock);
	bool		has = OidIsValid(leaf_of(parent, kind, time));

	table_close(parent, has ? NoLock : AccessShareLock);
	return has;
}

/* As has_leaf, but also find a leaf that was committed a moment ago. */
bool
has_new_leaf(LeafKind kind, TimestampTz time)
{
	AcceptInvalidationMessages();

	/*
	 * An invalidation message that arrives while the relcache entry is being
	 * built may leave the entry stale, so build it again.
	 */
	RelationCacheInvalidateEntry(parent_relation(kind));
	return has_leaf(kind, time);
}

/* True if setting max_months allows no more leaves of this kind. */
static bool
has_max_months(LeafKind kind)
{
	Relation	parent;
	int			count;

	if (kind != LEAF_MONTH)
		return false;
	parent = table_open(parent_relation(kind), AccessShareLock);
	count = RelationGetPartitionDesc(parent, true)->nparts;
	table_close(parent, AccessShareLock);
	return count >= current_settings()->max_months;
}

/* ---- creating a leaf ---- */

/* Return the name of the parent's tablespace; '' for the database's default. */
static const char *
parent_tablespace(const Parent *parent)
{
	Oid			tablespace = get_rel_tablespace(extension_relation(parent->name));

	return OidIsValid(tablespace) ? get_tablespace_name(tablespace) : "";
}

/*
 * Lock the parent in SHARE UPDATE EXCLUSIVE mode to create a leaf for a time.
 * Gives up after timeout milliseconds, or when another session has created the
 * leaf.  Does not queue for the lock, because requests of other sessions would
 * have to wait behind this one.
 */
ParentLock
lock_parent(LeafKind kind, TimestampTz time, int timeout)
{
	Oid			parent = parent_relation(kind);
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout);

	while (!ConditionalLockRelationOid(parent, ShareUpdateExclusiveLock))
	{
		if (GetCurrentTimestamp() >= deadline)
			return PARENT_BUSY;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (has_new_leaf(kind, time))
			return PARENT_HAS_LEAF;
	}
	return PARENT_LOCKED;
}

/* Release the lock that lock_parent took. */
void
unlock_parent(LeafKind kind)
{
	UnlockRelationOid(parent_relation(kind), ShareUpdateExclusiveLock);
}

static SqlQuery revoke_query = {
	.sql = "SELECT postalytics.revoke_all_privileges('TABLE ' || c.oid::regclass, c.relacl, c.relowner)"
	" FROM pg_catalog.pg_class AS c"
	" WHERE c.oid = $1"
	"   AND c.relacl IS NOT NULL",
	.result = SPI_OK_SELECT,
	.nparameters = 1,
	.types = {OIDOID}
};

/*
 * Create a leaf in the tablespace of its parent, whatever the session's
 * defaults are.  All privileges on the leaf are revoked, because queries on the
 * parent do not need them.  Row-level security without a policy hides the
 * leaf's rows from roles that get a privilege by default or by GRANT ON ALL
 * TABLES.  The names in these commands need no quotes.
 */
static void
create_leaf(const Parent *parent, const char *leaf, TimestampTz start)
{
	int			nest = NewGUCNestLevel();
	Datum		oid;

	SPI_connect();
	set_parameter("default_tablespace", parent_tablespace(parent));
	set_parameter("default_table_access_method", "heap");
	run_commands(psprintf("CREATE TABLE postalytics.%s"
						  " (LIKE postalytics.%s INCLUDING DEFAULTS INCLUDING STORAGE"
						  " INCLUDING CONSTRAINTS INCLUDING GENERATED)",
						  leaf, parent->name));
	run_commands(psprintf(parent->finish_leaf, leaf));
	run_commands(psprintf("ALTER TABLE postalytics.%s ENABLE ROW LEVEL SECURITY", leaf));
	oid = ObjectIdGetDatum(extension_relation(leaf));
	query_run(&revoke_query, &oid, NULL);
	run_commands(psprintf("ALTER TABLE postalytics.%s ATTACH PARTITION postalytics.%s FOR VALUES %s",
						  parent->name, leaf, parent->bounds(start)));
	SPI_finish();
	AtEOXact_GUC(true, nest);
}

/*
 * Time limit for the parent's lock if lock_timeout is not set, in
 * milliseconds.
 */
#define MAX_LOCK_WAIT	10000

/*
 * Ensure that there is a leaf for a time.
 *
 * The relcache, which routes rows, may not yet know a leaf that is already in
 * the catalog.  A transaction that commits becomes visible first, then sends
 * its invalidation messages, and then releases its locks.  Therefore, the
 * relcache is checked again after the parent is locked.
 *
 * Locks: SHARE UPDATE EXCLUSIVE on the parent until the transaction ends, but
 * only if the leaf does not exist.  Errors: 55P03 if the lock is not available
 * within lock_timeout, or within MAX_LOCK_WAIT if lock_timeout is not set.
 */
LeafState
ensure_leaf(LeafKind kind, TimestampTz time)
{
	const Parent *parent = &parents[kind];
	int			timeout = LockTimeout > 0 ? LockTimeout : MAX_LOCK_WAIT;
	ParentLock	lock;

	if (has_leaf(kind, time))
		return LEAF_EXISTS;
	if (leaf_name_is_taken(kind, time))
		return LEAF_NAME_TAKEN;
	if (has_max_months(kind))
		return LEAF_LIMIT_REACHED;
	lock = lock_parent(kind, time, timeout);
	if (lock == PARENT_BUSY)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not create a partition of \"%s.%s\" within %d ms",
						EXTENSION_SCHEMA, parent->name, timeout),
				 errdetail("Another transaction holds a conflicting lock on the table."),
				 errhint("Find that transaction in pg_locks, and try again after it has ended.")));
	if (lock == PARENT_HAS_LEAF || has_new_leaf(kind, time))
		return LEAF_EXISTS;
	if (look_up_name(leaf_name(kind, time)) != NAME_FREE)
		return LEAF_NAME_TAKEN;
	if (has_max_months(kind))
		return LEAF_LIMIT_REACHED;
	create_leaf(parent, leaf_name(kind, time), parent->start(time));
	return LEAF_CREATED;
}

/*
 * Create the leaf for a time unless it exists.  Returns true if it was created.
 * Errors: those of ensure_leaf, 42P07 if the leaf's name is taken, 53400 if
 * setting max_months allows no more leaves.
 */
static bool
create_missing_leaf(LeafKind kind, TimestampTz time)
{
	LeafState	state = ensure_leaf(kind, time);

	if (state == LEAF_NAME_TAKEN)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("table \"%s.%s\" is not a partition of %s", EXTENSION_SCHEMA,
						leaf_name(kind, time), parents[kind].name),
				 errhint("Attach it as a partition, or rename it.")));
	if (state == LEAF_LIMIT_REACHED)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("cannot create another partition of \"%s.%s\"", EXTENSION_SCHEMA, parents[kind].name),
				 errdetail("Setting \"max_months\" allows %d monthly partitions.", current_settings()->max_months),
				 errhint("Set \"retention\" so that maintain() retires old months, or increase \"max_months\".")));
	return state == LEAF_CREATED;
}

/*
 * Create the missing leaves for times at or after "from" and before until, and
 * return their number.  Errors: those of create_missing_leaf, 22023 if until is
 * not after "from", 22008 for a time that no leaf can hold.
 */
int32
create_leaves(LeafKind kind, TimestampTz from, TimestampTz until)
{
	int32		created = 0;

	if (until <= from)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"until\" must be after \"from\"")));
	(void) month_start(TIMESTAMP_NOT_FINITE(until) ? until : until - 1);
	for (TimestampTz start = parents[kind].start(from); start < until; start = parents[kind].next(start))
		created += create_missing_leaf(kind, start);
	return created;
}
