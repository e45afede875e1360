/*
 * table.h
 *		The extension's tables as C code expects them.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_TABLE_H
#define POSTALYTICS_TABLE_H

#include "access/attnum.h"
#include "access/tupdesc.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"

/*
 * A column of one of the extension's tables that is accessed by its position.
 * The type is ANYENUMOID for one of the extension's enums, and InvalidOid if
 * only NULL is written.
 */
typedef struct TableColumn
{
	const char *name;
	Oid			type;
	bool		not_null;		/* NULL is never written to it */
} TableColumn;

#define COLUMN(name, type)			{name, type, false}
#define COLUMN_NOT_NULL(name, type)	{name, type, true}

extern bool has_columns(Relation relation, const TableColumn *columns, int ncolumns);
extern void check_columns(Relation relation, const TableColumn *columns, int ncolumns);
extern bool has_key(Relation relation, AttrNumber first, int ncolumns);
extern Relation open_table(const char *name, const TableColumn *columns, int ncolumns, int nkeys, LOCKMODE mode);
extern void check_not_distributed(Oid relation);

/* A row that is being built. */
typedef struct Row
{
	Datum	   *values;
	bool	   *nulls;
} Row;

extern Row	new_row(TupleDesc tupdesc);

/* Set a column of a row, given its attribute number minus one. */
static inline void
row_set(Row row, int column, Datum value)
{
	row.values[column] = value;
	row.nulls[column] = false;
}

/* Set a column to a value that is passed by reference, where 0 means NULL. */
static inline void
row_set_or_null(Row row, int column, Datum value)
{
	row.values[column] = value;
	row.nulls[column] = value == (Datum) 0;
}

#endif							/* POSTALYTICS_TABLE_H */
