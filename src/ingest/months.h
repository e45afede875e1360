/*
 * months.h
 *		The months that the events of a call need.
 */
#ifndef POSTALYTICS_MONTHS_H
#define POSTALYTICS_MONTHS_H

#include "feed/batch.h"
#include "ingest/offer.h"
#include "storage/direct.h"

/* A month of events that is open for writing. */
typedef struct Month
{
	Relation	leaf;
	DirectTable *table;
} Month;

/* The months that a call needs. */
typedef struct Months
{
	Relation	events;
	Month	   *months;
	int			count;
	int			last;			/* the month found last */
} Months;

extern void ensure_months(EventBatch *batch);
extern bool open_months(Months *months, Offer *offer);
extern void close_months(Months *months);

#endif							/* POSTALYTICS_MONTHS_H */
