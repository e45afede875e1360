/*
 * sibling.h
 *		The deliveries of a sync for the same piece, which are called siblings.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_SIBLING_H
#define POSTALYTICS_SIBLING_H

#include "storage/lookup.h"
#include "sync/delivery.h"
#include "sync/place.h"

/* A search for the unfinished deliveries of a piece. */
typedef struct Siblings
{
	Datum		sync;			/* text */
	Place	   *place;			/* NULL to visit all entries */
	Lookup		lookup;			/* by piece_id, account, sync and occurred_at */
} Siblings;

extern void siblings_begin(Siblings *siblings, Relation unfinished, text *sync, Place *place);
extern void siblings_end(Siblings *siblings);
extern void siblings_seek(Siblings *siblings, Datum piece, Datum account, TimestampTz from);
extern bool siblings_next(Siblings *siblings, DeliveryRow *row);
extern bool is_before(const DeliveryRow *row, const DeliveryRow *other);
extern bool find_head(Siblings *siblings, Datum piece, Datum account, DeliveryRow *head, ItemPointer place);
extern bool find_lease(Siblings *siblings, const DeliveryRow *row, TimestampTz now, DeliveryRow *lease);
extern bool has_later_unfinished(Siblings *siblings, const DeliveryRow *row);
extern bool has_later_finished(Siblings *siblings, const DeliveryRow *row);

#endif							/* POSTALYTICS_SIBLING_H */
