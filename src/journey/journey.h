/*
 * journey.h
 *		Computes the rows of pieces from events.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_JOURNEY_H
#define POSTALYTICS_JOURNEY_H

#include "storage/events.h"
#include "utils/palloc.h"

typedef struct JourneyWriter JourneyWriter;

extern JourneyWriter *journey_writer_create(MemoryContext parent, bool replace);
extern void journey_add(JourneyWriter *writer, const EventRow *row);
extern void journey_next_piece(JourneyWriter *writer);
extern void journey_finish(JourneyWriter *writer);

#endif							/* POSTALYTICS_JOURNEY_H */
