/*
 * months.h
 *		The months that the events of a call need.
 *
 * A month is a monthly partition of events.  storage/partition.h calls
 * partitions leaves.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_MONTHS_H
#define POSTALYTICS_MONTHS_H

#include "feed/batch.h"
#include "ingest/offer.h"
#include "storage/direct.h"

/* A month that is open for writing. */
typedef struct Month
{
	Relation	leaf;			/* the partition */
	DirectTable *table;			/* NULL until all months are open */
} Month;

/* The months that a call has opened. */
typedef struct Months
{
	Relation	events;
	Month	   *months;
	int			count;
	int			last;			/* index of the month that was found last */
} Months;

extern void ensure_months(EventBatch *batch);
extern bool open_months(Months *months, Offer *offer);
extern void close_months(Months *months);

#endif							/* POSTALYTICS_MONTHS_H */
