/*
 * timeline.h
 *		The tables of a sync's limits and pauses, each indexed by sync and a time.
 */
#ifndef POSTALYTICS_TIMELINE_H
#define POSTALYTICS_TIMELINE_H

#include "base/table.h"
#include "storage/lookup.h"
#include "sync/sync.h"

/* One of these tables, as C code expects it, and its index. */
typedef struct Timeline
{
	const char *table;
	const char *index;
	const TableColumn *columns;
	int			ncolumns;
} Timeline;

extern void timeline_begin(Lookup *lookup, const Timeline *timeline, Snapshot snapshot, const Sync *sync,
						   TimestampTz after);
extern Datum timeline_value(Lookup *lookup, int column);
extern void timeline_end(Lookup *lookup);

#endif							/* POSTALYTICS_TIMELINE_H */
