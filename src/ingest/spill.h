/*
 * spill.h
 *		Event records that do not fit in memory.
 *
 * A spill holds the events of a statement in a tuplesort, which writes them to
 * disk if necessary.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_SPILL_H
#define POSTALYTICS_SPILL_H

#include "feed/batch.h"

typedef struct Spill Spill;

extern Spill *spill_create(MemoryContext parent);
extern void spill_add(Spill *spill, EventBatch *batch);
extern int64 spill_sort(Spill *spill, int64 *nerrors);
extern void spill_rewind(Spill *spill);
extern const EventKey *spill_next(Spill *spill);
extern const EventRecord *spill_record(Spill *spill);
extern void spill_end(Spill *spill);

#endif							/* POSTALYTICS_SPILL_H */
