/*
 * postalytics_status.c
 *		Module magic, settings, and the few helpers that every module needs.
 */
#include "postalytics_status.h"

#include <limits.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "base/compat.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

COMPAT_MODULE_MAGIC(EXTENSION_NAME, POSTALYTICS_VERSION);

PGDLLEXPORT void _PG_init(void);

PG_FUNCTION_INFO_V1(postalytics_configuration_changed);
PG_FUNCTION_INFO_V1(postalytics_setting);
PG_FUNCTION_INFO_V1(postalytics_check_not_distributed);

int			setting_identity = IDENTITY_MAIL;
bool		setting_keep_payload = true;
int			setting_earliest;
int			setting_latest;
int			setting_history;
int			setting_notify_interval;
int			setting_maintenance_interval;
char	   *setting_worker_databases;
pg_tz	   *feed_time_zone;

/* Of maintain(), which asks for them by name. */
static int	setting_retention;
static int	setting_retention_action;
static int	setting_premake_months;

static char *setting_feed_time_zone;

static const struct config_enum_entry identity_options[] = {
	{"mail", IDENTITY_MAIL, false},
	{"contact", IDENTITY_CONTACT, false},
	{NULL, 0, false}
};

static const struct config_enum_entry retention_actions[] = {
	{"drop", 0, false},
	{"detach", 1, false},
	{NULL, 0, false}
};

#define MINUTES_PER_DAY		(24 * 60)
#define SECONDS_PER_DAY		(MINUTES_PER_DAY * 60)

/* Ten years with their leap days. */
#define DEFAULT_EARLIEST	(3653 * MINUTES_PER_DAY)
#define DEFAULT_LATEST		MINUTES_PER_DAY
#define DEFAULT_HISTORY		(30 * MINUTES_PER_DAY)

static bool
check_feed_time_zone(char **newval, void **extra, GucSource source)
{
	pg_tz	   *zone = pg_tzset(*newval);

	if (zone == NULL)
		GUC_check_errdetail("Unrecognized time zone name: \"%s\".", *newval);
	else if (!pg_tz_acceptable(zone))
	{
		GUC_check_errmsg("time zone \"%s\" appears to use leap seconds", *newval);
		GUC_check_errdetail("PostgreSQL does not support leap seconds.");
	}
	else
		return true;
	return false;
}

static void
assign_feed_time_zone(const char *newval, void *extra)
{
	feed_time_zone = pg_tzset(newval);
}

/* Define the settings. */
void
_PG_init(void)
{
	DefineCustomEnumVariable(EXTENSION_NAME ".identity",
							 "What makes a mail piece the same piece.",
							 "\"mail\": its mail id, or campaign/contact where the feed gives none. "
							 "\"contact\": campaign/contact wherever both are known.",
							 &setting_identity, IDENTITY_MAIL, identity_options,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable(EXTENSION_NAME ".keep_payload",
							 "Stores each event's own JSON beside it.",
							 NULL,
							 &setting_keep_payload, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable(EXTENSION_NAME ".feed_time_zone",
							   "Time zone of the feed's stamps that name none.",
							   NULL,
							   &setting_feed_time_zone, "UTC",
							   PGC_USERSET, 0,
							   check_feed_time_zone, assign_feed_time_zone, NULL);
	DefineCustomIntVariable(EXTENSION_NAME ".earliest",
							"How far back an event's instant may lie.",
							NULL,
							&setting_earliest, DEFAULT_EARLIEST, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomIntVariable(EXTENSION_NAME ".latest",
							"How far ahead an event's instant may lie.",
							NULL,
							&setting_latest, DEFAULT_LATEST, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomIntVariable(EXTENSION_NAME ".history",
							"How long finished deliveries are kept.",
							"Zero keeps none.",
							&setting_history, DEFAULT_HISTORY, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomIntVariable(EXTENSION_NAME ".retention",
							"How long months of events are kept.",
							"Zero keeps them for ever.",
							&setting_retention, 0, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomEnumVariable(EXTENSION_NAME ".retention_action",
							 "What becomes of months beyond retention.",
							 NULL,
							 &setting_retention_action, 0, retention_actions,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(EXTENSION_NAME ".premake_months",
							"How many months ahead maintain() makes.",
							NULL,
							&setting_premake_months, 2, 0, 120,
							PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(EXTENSION_NAME ".notify_interval",
							"How long the background worker lets pass between notifications.",
							NULL,
							&setting_notify_interval, 50, 0, 60000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable(EXTENSION_NAME ".maintenance_interval",
							"How often the background worker calls maintain().",
							"Zero leaves it to others.",
							&setting_maintenance_interval, SECONDS_PER_DAY, 0, 7 * SECONDS_PER_DAY,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomStringVariable(EXTENSION_NAME ".worker_databases",
							   "The databases that have a background worker.",
							   "A list of names; * for all that have the extension.",
							   &setting_worker_databases, "*",
							   PGC_SIGHUP, GUC_LIST_INPUT, NULL, NULL, NULL);
	MarkGUCPrefixReserved(EXTENSION_NAME);
	if (process_shared_preload_libraries_in_progress)
		worker_init();
}

/* OID of one of the extension's relations; error 42P01 if it is not there. */
Oid
extension_relation(const char *name)
{
	Oid			schema = get_namespace_oid(EXTENSION_SCHEMA, false);
	Oid			relation = get_relname_relid(name, schema);

	if (!OidIsValid(relation))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" does not exist",
						EXTENSION_SCHEMA, name),
				 errhint("Run CREATE EXTENSION %s.", EXTENSION_NAME)));
	return relation;
}

/* Who owns the extension: as with all of its members, the owner of events. */
Oid
extension_owner(void)
{
	HeapTuple	events = SearchSysCache1(RELOID, ObjectIdGetDatum(extension_relation("events")));
	Oid			owner;

	if (!HeapTupleIsValid(events))
		elog(ERROR, "cache lookup failed for relation %u", extension_relation("events"));
	owner = ((Form_pg_class) GETSTRUCT(events))->relowner;
	ReleaseSysCache(events);
	return owner;
}

/*
 * The kept plan of a query, made at first use.  The server revalidates it when
 * a table it reads changes or is made anew.
 */
SPIPlanPtr
keep_plan(SPIPlanPtr *plan, const char *query, int nargs, Oid *types)
{
	if (*plan == NULL)
	{
		SPIPlanPtr	made = SPI_prepare(query, nargs, types);

		if (made == NULL)
			elog(ERROR, "SPI_prepare failed: %s",
				 SPI_result_code_string(SPI_result));
		if (SPI_keepplan(made) != 0)
			elog(ERROR, "SPI_keepplan failed");
		*plan = made;
	}
	return *plan;
}

/* A row of NULLs; users may have added columns to a table of ours. */
void
new_row(TupleDesc tupdesc, Datum **values, bool **nulls)
{
	*values = palloc0(tupdesc->natts * sizeof(Datum));
	*nulls = palloc(tupdesc->natts * sizeof(bool));
	memset(*nulls, true, tupdesc->natts * sizeof(bool));
}

static bool
is_column(Form_pg_attribute attribute, const TableColumn *column)
{
	if (attribute->attisdropped || strcmp(NameStr(attribute->attname), column->name) != 0)
		return false;
	if (column->type == ANYENUMOID)
		return type_is_enum(attribute->atttypid);
	return !OidIsValid(column->type) || attribute->atttypid == column->type;
}

/* True if a table's first columns are these. */
bool
has_columns(Relation relation, const TableColumn *columns, int ncolumns)
{
	const TupleDesc tupdesc = RelationGetDescr(relation);

	if (tupdesc->natts < ncolumns)
		return false;
	for (int i = 0; i < ncolumns; i++)
		if (!is_column(TupleDescAttr(tupdesc, i), &columns[i]))
			return false;
	return true;
}

/*
 * Error 0A000 if Citus has distributed a table, or any table of the extension
 * if relation is InvalidOid.  Rows written here would go to the local table,
 * which queries on a distributed table do not read.
 */
void
check_not_distributed(Oid relation)
{
	Oid			schema = OidIsValid(relation) ? InvalidOid : get_namespace_oid(EXTENSION_SCHEMA, false);
	Oid			each = InvalidOid;
	Oid			distributed = get_relname_relid("pg_dist_partition", PG_CATALOG_NAMESPACE);
	AttrNumber	column = OidIsValid(distributed) ? get_attnum(distributed, "logicalrelid") : 0;
	Relation	catalog;
	TableScanDesc scan;
	TupleTableSlot *slot;
	bool		isnull;
	bool		found = false;

	if (column <= 0)
		return;
	catalog = table_open(distributed, AccessShareLock);
	scan = compat_beginscan(catalog, GetActiveSnapshot());
	slot = table_slot_create(catalog, NULL);
	while (!found && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		each = DatumGetObjectId(slot_getattr(slot, column, &isnull));
		found = OidIsValid(relation) ? each == relation : get_rel_namespace(each) == schema;
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	table_close(catalog, AccessShareLock);
	if (found)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table \"%s.%s\" must not be distributed", EXTENSION_SCHEMA, get_rel_name(each)),
				 errdetail("Extension \"%s\" writes to the local table, which queries on a distributed table do not read.",
						   EXTENSION_NAME),
				 errhint("Export the data, drop the extension with CASCADE, and create it again.")));
}

/*
 * Error 55000 unless a table's first columns are these, because users can
 * alter a table of ours; 0A000 if it is distributed.
 */
void
check_columns(Relation relation, const TableColumn *columns, int ncolumns)
{
	check_not_distributed(RelationGetRelid(relation));
	if (!has_columns(relation, columns, ncolumns))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" does not have the columns that extension \"%s\" gave it",
						EXTENSION_SCHEMA, RelationGetRelationName(relation), EXTENSION_NAME),
				 errhint("Columns may be added; those of the extension must keep their names, types and order.")));
}

/* True if the primary key consists of ncolumns consecutive columns, beginning with first. */
bool
has_key(Relation relation, AttrNumber first, int ncolumns)
{
	Oid			key = compat_primary_key(relation);
	Relation	index;
	bool		has;

	if (!OidIsValid(key))
		return false;
	index = index_open(key, AccessShareLock);
	has = IndexRelationGetNumberOfKeyAttributes(index) == ncolumns;
	for (int i = 0; i < ncolumns && has; i++)
		has = index->rd_index->indkey.values[i] == first + i;
	index_close(index, AccessShareLock);
	return has;
}

/*
 * Error 55000 unless the primary key is the first column.  With another key,
 * writing by key could merge two rows or duplicate one.
 */
void
check_key(Relation relation)
{
	if (!has_key(relation, 1, 1))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" does not have the primary key that extension \"%s\" gave it",
						EXTENSION_SCHEMA, RelationGetRelationName(relation), EXTENSION_NAME),
				 errhint("Recreate the primary key on column \"%s\".",
						 NameStr(TupleDescAttr(RelationGetDescr(relation), 0)->attname))));
}

/*
 * Open a table of ours whose rows are written by its first column.  Error 55000
 * if users have altered its columns or primary key, 0A000 if it is distributed.
 */
Relation
open_table(const char *name, const TableColumn *columns, int ncolumns, LOCKMODE mode)
{
	Relation	table = table_open(extension_relation(name), mode);

	check_columns(table, columns, ncolumns);
	check_key(table);
	return table;
}

/* Let the queries of this SPI connection read rows, of relation's type, by name. */
void
register_rows(const char *name, Oid relation, Tuplestorestate *rows,
			  int64 count)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));
	int			result;

	enr->md.name = pstrdup(name);
	enr->md.reliddesc = relation;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = count;
	enr->reldata = rows;
	result = SPI_register_relation(enr);
	if (result != SPI_OK_REL_REGISTER)
		elog(ERROR, "SPI_register_relation failed: %s",
			 SPI_result_code_string(result));
}

static void
forget_table(Datum arg, Oid relation)
{
	TableCache *cache = (TableCache *) DatumGetPointer(arg);

	if (!OidIsValid(relation) || cache->relation == relation)
		cache->relation = InvalidOid;
}

/* Hand each row of the table to the cache. */
static void
read_table(TableCache *cache)
{
	Relation	rel = table_open(cache->relation, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = compat_beginscan(rel, snapshot);
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		cache->add(slot);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

/*
 * Make the cache anew if its table has changed since, or is another one by now
 * (DROP and CREATE EXTENSION).  The table is read directly and not by a query:
 * whoever inserts events needs no privilege on it.
 */
void
refresh_cache(TableCache *cache)
{
	Oid			relation = extension_relation(cache->table);
	MemoryContext caller;

	AcceptInvalidationMessages();	/* no lock is taken that would */
	if (cache->complete && cache->relation == relation)
		return;

	cache->complete = false;	/* an error may end what follows */
	if (cache->context == NULL)
		CacheRegisterRelcacheCallback(forget_table, PointerGetDatum(cache));
	else						/* a caller further out may still read it */
		MemoryContextSetParent(cache->context, TopTransactionContext);
	cache->context = AllocSetContextCreate(TopMemoryContext,
										   "postalytics cache",
										   ALLOCSET_SMALL_SIZES);
	cache->relation = relation; /* before reading, which may learn better */
	caller = MemoryContextSwitchTo(cache->context);
	cache->begin();
	read_table(cache);
	MemoryContextSwitchTo(caller);
	cache->complete = true;
}

/*
 * Statement trigger on the tables that backends cache: tells them all, at
 * commit, that it changed.  It does nothing else, so that a restore, which
 * fires it, is none the wiser.
 */
Datum
postalytics_configuration_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("configuration_changed must be called as a trigger")));
	CacheInvalidateRelcache(trigger->tg_relation);
	return PointerGetDatum(NULL);
}

/*
 * setting(name text) returns text
 *
 * What SHOW gives for postalytics_status.name.  Strict.  Errors: 42704 for a
 * setting that there is not.
 */
Datum
postalytics_setting(PG_FUNCTION_ARGS)
{
	char	   *name = psprintf(EXTENSION_NAME ".%s", text_to_cstring(PG_GETARG_TEXT_PP(0)));

	PG_RETURN_TEXT_P(cstring_to_text(GetConfigOptionByName(name, NULL, false)));
}

/* check_not_distributed() returns void: error 0A000; called by SQL functions that write */
Datum
postalytics_check_not_distributed(PG_FUNCTION_ARGS)
{
	check_not_distributed(InvalidOid);
	PG_RETURN_VOID();
}
