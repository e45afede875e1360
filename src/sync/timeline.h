/*
 * timeline.h
 *		The tables of a sync's limits and pauses, which are called timelines.
 *
 * Each of them has an index on the sync and a time.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_TIMELINE_H
#define POSTALYTICS_TIMELINE_H

#include "base/table.h"
#include "storage/lookup.h"
#include "sync/sync.h"

/* A timeline: the table, its index, and the columns that C code expects. */
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
