/*
 * cache.h
 *		Small tables that each session keeps in memory.
 */
#ifndef POSTALYTICS_CACHE_H
#define POSTALYTICS_CACHE_H

#include "executor/tuptable.h"
#include "utils/palloc.h"

/*
 * One of the extension's tables in memory.  begin and add run in the cache's
 * own memory context: begin makes it empty, and add is given each row.
 */
typedef struct TableCache
{
	const char *table;
	void		(*begin) (void);
	void		(*add) (TupleTableSlot *row);
	MemoryContext context;
	Oid			relation;		/* that was read; InvalidOid once it has
								 * changed */
	bool		complete;		/* false if an error ended the last read */
} TableCache;

extern void refresh_cache(TableCache *cache);

#endif							/* POSTALYTICS_CACHE_H */
