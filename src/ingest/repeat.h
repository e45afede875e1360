/*
 * repeat.h
 *		Repeated events.
 */
#ifndef POSTALYTICS_REPEAT_H
#define POSTALYTICS_REPEAT_H

#include "executor/tuptable.h"
#include "feed/event.h"

extern bool repeat_says_more(const EventRecord *record, TupleTableSlot *stored);
extern void repeat_merge(Datum *values, bool *nulls, const Datum *stored, const bool *stored_nulls);
extern bool repeat_update(const EventRecord *record);

#endif							/* POSTALYTICS_REPEAT_H */
