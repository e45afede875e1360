/*
 * match.h
 *		Matching of new events against the syncs.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_MATCH_H
#define POSTALYTICS_MATCH_H

#include "storage/events.h"
#include "utils/palloc.h"

typedef struct SyncMatch SyncMatch;

extern SyncMatch *sync_match_begin(MemoryContext parent);
extern void sync_match_event(SyncMatch *match, const EventRow *row);
extern void sync_match_error(SyncMatch *match, const EventRow *row);
extern void sync_match_finish(SyncMatch *match);

#endif							/* POSTALYTICS_MATCH_H */
