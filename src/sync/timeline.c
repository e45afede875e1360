/*
 * timeline.c
 *		Reads the tables of a sync's limits and pauses through their indexes.
 *
 * Every fetch reads these tables, so reading them with queries would cost too much.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#include "postgres.h"

#include "access/table.h"
#include "base/compat.h"
#include "base/extension.h"
#include "sync/timeline.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/*
 * Prepare to read the rows of a sync whose time is later than after.  lookup_next
 * then reads them in either direction.  Locks: AccessShareLock on the table.
 * Error 55000 if the table was altered.
 */
void
timeline_begin(Lookup *lookup, const Timeline *timeline, Snapshot snapshot, const Sync *sync,
			   TimestampTz after)
{
	Relation	table = table_open(extension_relation(timeline->table), AccessShareLock);

	check_columns(table, timeline->columns, timeline->ncolumns);
	lookup_begin(lookup, table, extension_relation(timeline->index), snapshot, 2);
	lookup_key(lookup, 0, 1, BTEqualStrategyNumber, CStringGetTextDatum(sync->name));
	lookup_key(lookup, 1, 2, BTGreaterStrategyNumber, TimestampTzGetDatum(after));
	lookup_rescan(lookup);
}

/* Return the value of a column of the current row.  The value must not be null. */
Datum
timeline_value(Lookup *lookup, int column)
{
	bool		isnull;

	return slot_getattr(lookup->slot, column + 1, &isnull);
}

void
timeline_end(Lookup *lookup)
{
	lookup_end(lookup);
	table_close(lookup->table, NoLock);
}
