/*
 * table.c
 *		Checks that the extension's tables have the columns and the primary key
 *		that C code expects, and that Citus has not distributed them.
 *
 * Users may add columns, triggers and indexes.  After any other change, an
 * error is better than values in the wrong columns.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "base/compat.h"
#include "base/extension.h"
#include "base/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(postalytics_check_not_distributed);

static bool
is_column(Form_pg_attribute attribute, const TableColumn *column)
{
	if (attribute->attisdropped || strcmp(NameStr(attribute->attname), column->name) != 0)
		return false;
	if (column->type == ANYENUMOID)
		return type_is_enum(attribute->atttypid);
	return !OidIsValid(column->type) || attribute->atttypid == column->type;
}

/* True if the first columns of a table are the given ones. */
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
 * Check that Citus has not distributed a table, or any table of the extension
 * if relation is InvalidOid.  Error 0A000 if it has.  The extension would write
 * rows to the local table, which queries on a distributed table do not read.
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
 * Check that users have not altered the first columns of a table, which must be
 * the given ones.  Error 55000 if they are not, 0A000 if the table is
 * distributed.
 */
void
check_columns(Relation relation, const TableColumn *columns, int ncolumns)
{
	check_not_distributed(RelationGetRelid(relation));
	if (!has_columns(relation, columns, ncolumns))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" does not have the columns that extension \"%s\" requires",
						EXTENSION_SCHEMA, RelationGetRelationName(relation), EXTENSION_NAME),
				 errhint("You can add columns, but those of the extension must keep their names, types and order.")));
}

/*
 * True if the primary key consists of ncolumns consecutive columns, beginning
 * with first.
 */
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
 * Check that the primary key consists of the first nkeys columns.  Error 55000
 * if it does not.  With another key, an upsert could merge two rows or
 * duplicate one.
 */
static void
check_key(Relation relation, const TableColumn *columns, int nkeys)
{
	if (!has_key(relation, 1, nkeys))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" does not have the primary key that extension \"%s\" requires",
						EXTENSION_SCHEMA, RelationGetRelationName(relation), EXTENSION_NAME),
				 nkeys == 1 ?
				 errhint("Recreate the primary key on column \"%s\".", columns[0].name) :
				 errhint("Recreate the primary key on columns \"%s\" and \"%s\".",
						 columns[0].name, columns[1].name)));
}

/*
 * Open one of the extension's tables, whose primary key is its first nkeys
 * columns (one or two).  Error 55000 if users have altered its columns or
 * primary key, 0A000 if it is distributed.
 */
Relation
open_table(const char *name, const TableColumn *columns, int ncolumns, int nkeys, LOCKMODE mode)
{
	Relation	table = table_open(extension_relation(name), mode);

	check_columns(table, columns, ncolumns);
	check_key(table, columns, nkeys);
	return table;
}

/*
 * Allocate a row of NULLs for all columns of the table, including those that
 * users have added.
 */
Row
new_row(TupleDesc tupdesc)
{
	Row			row = {
		palloc0(tupdesc->natts * sizeof(Datum)),
		palloc(tupdesc->natts * sizeof(bool))
	};

	memset(row.nulls, true, tupdesc->natts * sizeof(bool));
	return row;
}

/*
 * check_not_distributed() returns void
 *
 * Raises error 0A000 if Citus has distributed any table of the extension.  SQL
 * functions call it before they write.
 */
Datum
postalytics_check_not_distributed(PG_FUNCTION_ARGS)
{
	check_not_distributed(InvalidOid);
	PG_RETURN_VOID();
}
