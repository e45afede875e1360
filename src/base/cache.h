/*
 * cache.h
 *		Small tables that each session keeps in memory.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_CACHE_H
#define POSTALYTICS_CACHE_H

#include "executor/tuptable.h"
#include "utils/palloc.h"

/*
 * A copy of one of the extension's tables in memory.  Three functions, which
 * run in the memory context of the cache, maintain the copy: begin empties it,
 * add is called for each row, and end, which may be NULL, is called after the
 * last row.
 */
typedef struct TableCache
{
	const char *table;
	void		(*begin) (void);
	void		(*add) (TupleTableSlot *row);
	void		(*end) (void);
	MemoryContext context;
	Oid			relation;		/* the table that was read; InvalidOid after
								 * the table has changed */
	bool		complete;		/* false if an error ended the last read */
	bool		provisional;	/* read in a parallel query, with the snapshot
								 * that the next four fields identify */
	TransactionId xmax;
	uint32		xcnt;
	int32		subxcnt;
	CommandId	curcid;
	struct TableCache *next;
} TableCache;

extern void refresh_cache(TableCache *cache);

#endif							/* POSTALYTICS_CACHE_H */
