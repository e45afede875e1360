/*
 * lookup.h
 *		Rows found through one index and locked, without a query.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_LOOKUP_H
#define POSTALYTICS_LOOKUP_H

#include "access/genam.h"
#include "access/skey.h"
#include "access/stratnum.h"
#include "executor/tuptable.h"
#include "nodes/lockoptions.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#define MAX_LOOKUP_KEYS	4
#define MAX_ROW_KEY		3

/* A table, the index through which its rows are found, and the current row. */
typedef struct Lookup
{
	Relation	table;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *slot;
	int			nkeys;
	ScanKeyData keys[MAX_LOOKUP_KEYS];
	ScanKeyData row[MAX_ROW_KEY];	/* members of the key that is a row
									 * comparison */
} Lookup;

extern void index_key(ScanKey key, Relation index, int column, StrategyNumber strategy, Datum value);
extern void lookup_begin(Lookup *lookup, Relation table, Oid index, Snapshot snapshot, int nkeys);
extern void lookup_key(Lookup *lookup, int i, int column, StrategyNumber strategy, Datum value);
extern void lookup_row_key(Lookup *lookup, int i, int column, StrategyNumber strategy, int count,
						   const Datum *values);
extern void lookup_rescan(Lookup *lookup);
extern bool lookup_next(Lookup *lookup, ScanDirection direction);
extern bool lookup_next_entry(Lookup *lookup, Datum *values);
extern bool lookup_row(Lookup *lookup);
extern bool lookup_first(Lookup *lookup);
extern void lookup_end(Lookup *lookup);
extern bool lock_row(Relation table, ItemPointer place, LockTupleMode mode, LockWaitPolicy wait,
					 TupleTableSlot *slot);
extern void raise_serialization_failure(void);

#endif							/* POSTALYTICS_LOOKUP_H */
