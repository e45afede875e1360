/*
 * repeat.h
 *		Repeated events.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_REPEAT_H
#define POSTALYTICS_REPEAT_H

#include "executor/tuptable.h"
#include "storage/events.h"

extern bool repeat_adds_data(const EventRecord *record, TupleTableSlot *stored);
extern bool repeat_merge(Datum *values, bool *nulls, const Datum *stored, const bool *stored_nulls);
extern bool read_stored_event(Relation leaf, const EventKey *key, EventRow *row);

#endif							/* POSTALYTICS_REPEAT_H */
