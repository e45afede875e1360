/*
 * offer.h
 *		The events that a call offers to the table events.
 *
 * An offer is the list of the events of a call in the order of their keys.
 * Some of them may be stored already.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_OFFER_H
#define POSTALYTICS_OFFER_H

#include "base/table.h"
#include "feed/batch.h"
#include "ingest/spill.h"

/* A record with the beginning of its key, for sorting. */
typedef struct OrderedRecord
{
	uint64		prefix;			/* first bytes of the piece, as a number that
								 * sorts in the same order */
	const EventRecord *record;
} OrderedRecord;

/* Where an event is inserted. */
typedef struct EventTarget
{
	int64		event_id;		/* 0 until the event is inserted */
	int			month;			/* index in Months */
	bool		adds_data;		/* the event has data that the stored event
								 * lacks */
} EventTarget;

/* The events of a call in key order, read from a batch or a spill. */
typedef struct Offer
{
	OrderedRecord *records;		/* sorted records of a batch; NULL for a spill */
	Spill	   *spill;			/* NULL for a batch */
	int64		count;			/* number of events and production errors */
	int64		nerrors;		/* number of production errors */
	int64		next;			/* index of the event after the current one */
	const EventKey *key;		/* key of the current event, or NULL if there
								 * is none */
	const EventRecord *record;	/* the current event; not set for a spill */
	EventTarget *targets;		/* one for each event, in key order */
	bool		is_inserted;	/* the query has read all events, and its
								 * trigger is reading them again */
	bool		keep_payload;	/* setting keep_payload */
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
