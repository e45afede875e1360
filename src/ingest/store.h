/*
 * store.h
 *		Stores events and everything that is derived from them.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_STORE_H
#define POSTALYTICS_STORE_H

#include "feed/batch.h"
#include "fmgr.h"
#include "ingest/spill.h"

/* The result of a call: numbers of events and production errors. */
typedef struct IngestResult
{
	int64		inserted;
	int64		duplicates;
	int64		rejected;
} IngestResult;

extern IngestResult store_batch(EventBatch *batch, int64 bytes);
extern void spill_batch(EventBatch *batch, Spill *spill);
extern IngestResult store_spill(Spill *spill);
extern Datum form_result(FunctionCallInfo fcinfo, IngestResult result);

#endif							/* POSTALYTICS_STORE_H */
