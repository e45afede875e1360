/*
 * derive.h
 *		Derives journeys, campaigns and deliveries from events.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_DERIVE_H
#define POSTALYTICS_DERIVE_H

#include "executor/tuptable.h"
#include "storage/events.h"
#include "utils/palloc.h"

/* What is derived from events. */
typedef enum DeriveKind
{
	DERIVE_NEW,					/* pieces, campaigns and deliveries, from new
								 * events */
	DERIVE_PIECES,				/* pieces and campaigns, from all events of
								 * these pieces */
	DERIVE_CAMPAIGNS			/* campaigns only, from any events */
} DeriveKind;

typedef struct Derivation Derivation;

extern Derivation *derive_begin(DeriveKind kind);
extern MemoryContext derive_piece(Derivation *derivation, const EventKey *key);
extern void derive_row(Derivation *derivation, const EventRow *row);
extern void derive_campaign(Derivation *derivation, const EventRow *row);
extern void derive_error(Derivation *derivation, const EventRow *row);
extern void derive_slot(Derivation *derivation, TupleTableSlot *slot);
extern void derive_end(Derivation *derivation);

#endif							/* POSTALYTICS_DERIVE_H */
