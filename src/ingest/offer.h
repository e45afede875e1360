/*
 * offer.h
 *		The events that a call offers to the table events.
 */
#ifndef POSTALYTICS_OFFER_H
#define POSTALYTICS_OFFER_H

#include "base/table.h"
#include "feed/batch.h"
#include "ingest/spill.h"

/* A record with the start of its key, for sorting. */
typedef struct OrderedRecord
{
	uint64		prefix;			/* of the piece; compares as its bytes do */
	const EventRecord *record;
} OrderedRecord;

/* Where an event is inserted. */
typedef struct EventTarget
{
	int64		event_id;		/* 0 until the event is inserted */
	int			month;			/* index in Months */
	bool		adds_data;		/* the stored event lacks some of its data */
} EventTarget;

/* The events of a call, in key order, from a batch or a spill. */
typedef struct Offer
{
	OrderedRecord *records;		/* of a batch, or NULL */
	Spill	   *spill;			/* or NULL */
	int64		count;
	int64		nerrors;		/* number of production errors among them */
	int64		next;			/* index of the event after the current one */
	const EventKey *key;		/* of the current event, or NULL */
	const EventRecord *record;	/* the current event of a batch */
	EventTarget *targets;		/* in key order */
	bool		is_inserted;	/* the query has read all events, and its
								 * trigger reads them again */
	bool		keep_payload;	/* the setting */
	bool		show_progress;
} Offer;

extern void offer_batch(Offer *offer, EventBatch *batch, bool show_progress);
extern void offer_spill(Offer *offer, Spill *spill);
extern void offer_rewind(Offer *offer);
extern bool offer_next(Offer *offer);
extern bool offer_next_event(Offer *offer);
extern bool offer_next_error(Offer *offer);
extern const EventRecord *offer_record(Offer *offer);
extern EventTarget *offer_target(Offer *offer);
extern void set_event(const EventRecord *record, bool keep_payload, Row row);
extern int64 offer_insert(Offer *offer);
extern const EventRecord *offered_record(const EventKey *key);

#endif							/* POSTALYTICS_OFFER_H */
