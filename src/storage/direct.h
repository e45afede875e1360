/*
 * direct.h
 *		Inserts and updates of rows without a query.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_DIRECT_H
#define POSTALYTICS_DIRECT_H

#include "base/table.h"
#include "executor/tuptable.h"

typedef struct DirectTable DirectTable;

/*
 * Merge the stored row into a new row with the same key.  Returns false to
 * leave the stored row unchanged.
 */
typedef bool (*DirectMerge) (Datum *values, bool *nulls,
							 const Datum *stored, const bool *stored_nulls);

extern bool direct_allowed(Relation relation, const TableColumn *columns, int ncolumns);
extern bool direct_allowed_below(Relation parent, const TableColumn *columns, int ncolumns,
								 const char *trigger);
extern DirectTable *direct_open(Relation relation, int ncolumns);
extern bool direct_insert(DirectTable *table, const Datum *values, const bool *nulls, bool expect_new);
extern TupleTableSlot *direct_stored(DirectTable *table);
extern bool direct_update(DirectTable *table, const Datum *values, const bool *nulls, DirectMerge merge);
extern void direct_upsert(DirectTable *table, const Datum *values, const bool *nulls, DirectMerge merge);
extern void direct_next_command(DirectTable *table);
extern void direct_close(DirectTable *table);

#endif							/* POSTALYTICS_DIRECT_H */
