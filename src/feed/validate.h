/*
 * validate.h
 *		Validates events.
 *
 * Copyright (c) 2026, the postalytics_status developers
 */
#ifndef POSTALYTICS_VALIDATE_H
#define POSTALYTICS_VALIDATE_H

#include "feed/batch.h"

extern bool has_known_type(EventRecord *record, const EventBatch *batch);
extern bool is_ignored_event(EventRecord *record, const EventBatch *batch);
extern const char *validate_event(EventRecord *record, uint32 misplaced, const EventBatch *batch);
extern const char *readable_piece(EventRecord *record, const EventBatch *batch);
extern const char *readable_account(EventRecord *record);
extern void drop_invalid_fields(EventRecord *record);

#endif							/* POSTALYTICS_VALIDATE_H */
