/*
 * resolve.h
 *		What an event is about: its piece, its status and its time.
 */
#ifndef POSTALYTICS_RESOLVE_H
#define POSTALYTICS_RESOLVE_H

#include "feed/batch.h"

extern const char *resolve_event(EventRecord *record, uint32 misplaced, const EventBatch *batch);
extern const char *readable_piece(EventRecord *record, const EventBatch *batch);
extern void drop_invalid_fields(EventRecord *record);

#endif							/* POSTALYTICS_RESOLVE_H */
